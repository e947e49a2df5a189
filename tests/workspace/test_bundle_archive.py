"""The tar file of a bundle: whole or not there; nothing is unpacked of one that is cut, damaged or hostile."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from hpotune.errors import HpotuneError, StudyFileError
from hpotune.records.bundle_record import MANIFEST, BundleManifest
from hpotune.workspace.bundle_archive import PackedFile, check_room, unpack_bundle, write_bundle

MANIFEST_OF = BundleManifest(study="lab", study_file="study.yaml", made="2026-01-01T00:00:00+00:00")


def quiet(done: int, total: int) -> None:
    """Shows nothing."""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of a study file and 100 kB."""
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 400)
    (tmp_path / "weights").chmod(0o755)
    files = {"study.yaml": PackedFile(source=b"name: lab\n"), "a/w": PackedFile(source=tmp_path / "weights")}
    write_bundle(tmp_path / "lab.tar", files, MANIFEST_OF, show=quiet)
    return tmp_path / "lab.tar"


def unpack(file: Path, folder: Path) -> BundleManifest:
    return unpack_bundle(file, folder, show=quiet, finish=lambda scratch, manifest: None)


def left(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()} - {"lab.tar", "weights"}


def test_bundle_comes_back_as_packed(bundle: Path, tmp_path: Path) -> None:
    manifest = unpack(bundle, tmp_path / "there")
    assert (tmp_path / "there/a/w").read_bytes() == (tmp_path / "weights").read_bytes()
    assert (tmp_path / "there/a/w").stat().st_mode & 0o111
    assert [one.path for one in manifest.files] == ["a/w", "study.yaml"]


@pytest.mark.parametrize("at", [700, 60_000, 104_460])
def test_damaged_bundle_leaves_nothing(bundle: Path, tmp_path: Path, at: int) -> None:
    content = bytearray(bundle.read_bytes())
    content[at] ^= 0xFF
    bundle.write_bytes(content)
    with pytest.raises(HpotuneError, match=r"damaged|no bundle|was cut"):
        unpack(bundle, tmp_path / "there")
    assert left(tmp_path) == set()


@pytest.mark.parametrize("size", [0, 300, 50_000, 103_500])
def test_cut_bundle_leaves_nothing(bundle: Path, tmp_path: Path, size: int) -> None:
    bundle.write_bytes(bundle.read_bytes()[:size])
    with pytest.raises(HpotuneError, match=r"no bundle|was cut|damaged"):
        unpack(bundle, tmp_path / "there")
    assert left(tmp_path) == set()


@pytest.mark.parametrize("name", ["lab/../../evil", "/tmp/evil", "evil", "lab/link"])
def test_hostile_member_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    with tarfile.open(bundle, "a") as tar:
        info = tarfile.TarInfo(name)
        if name == "lab/link":
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info, io.BytesIO())
    with pytest.raises(HpotuneError, match="which no bundle of hpotune holds"):
        unpack(bundle, tmp_path / "there")
    assert left(tmp_path) == set()


def test_added_member_is_refused(bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(bundle, "a") as tar:
        tar.addfile(tarfile.TarInfo("lab/sitecustomize.py"), io.BytesIO())
    with pytest.raises(HpotuneError, match=r"sitecustomize\.py is not what was packed"):
        unpack(bundle, tmp_path / "there")


def test_existing_folder_is_kept(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine").write_text("mine")
    with pytest.raises(StudyFileError, match="is there already; name a new folder"):
        unpack(bundle, tmp_path / "there")
    assert (tmp_path / "there/mine").read_text() == "mine"


def test_unreadable_file_leaves_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    files = {"w": PackedFile(source=tmp_path / "weights")}
    with pytest.raises(HpotuneError, match="weights: cannot be packed"):
        write_bundle(tmp_path / "new.tar", files, MANIFEST_OF, show=quiet)
    assert left(tmp_path) == set()


def test_room_is_checked_before(tmp_path: Path) -> None:
    with pytest.raises(HpotuneError, match=r"GB free, and lab\.tar needs 1152921504\.61 GB"):
        check_room(tmp_path / "not" / "made", 2**60, what="lab.tar")
    assert check_room(tmp_path, 1, what="lab.tar") > 1


def test_manifest_is_last(bundle: Path) -> None:
    with tarfile.open(bundle) as tar:
        assert tar.getnames()[-1] == f"lab/{MANIFEST}"
