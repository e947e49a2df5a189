"""Copies of a model on a node's disk: one for all processes, whole or not there, removed once nobody needs it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpotune.workspace import staged_copies
from hpotune.workspace.staged_copies import (
    NotStaged,
    Original,
    StagedCopy,
    release_copies,
    stage_folder,
    staged_copy,
)

COPY = """
import os, sys, time
from pathlib import Path
from hpotune.workspace import staged_copies
original, root, study, pause = *map(Path, sys.argv[1:4]), float(sys.argv[4])
write = staged_copies.os.fsync
staged_copies.os.fsync = lambda fd: (os.write(1, b"copying\\n"), time.sleep(pause), write(fd))
made = staged_copies.staged_copy(
    staged_copies.Original(name="m", files={one.name: one for one in original.iterdir()}), root, study=study)
print(made.folder, made.seconds is not None, flush=True)
"""


@pytest.fixture
def model(tmp_path: Path) -> Original:
    """Two files, with nothing known of their hashes."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_bytes(os.urandom(100_000))
    return Original(name="m", files={one.name: one for one in folder.iterdir()})


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 70 MB, of which MARGIN_BYTES stay free."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs root; run `sudo scripts/test`")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def start(model: Original, disk: Path, study: Path, *, pause: float) -> subprocess.Popen[str]:
    folder = next(iter(model.files.values())).parent
    command = [sys.executable, "-c", COPY, str(folder), str(disk), str(study), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def left(disk: Path) -> set[str]:
    """Copies, whole or not; without lock files."""
    return {one.name for one in disk.glob("hpotune-stage-*/*") if one.is_dir()}


def contents(copy: StagedCopy) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in copy.folder.iterdir() if one.name != "staged.json"}


def test_second_use_copies_nothing(model: Original, disk: Path, study: Path) -> None:
    first = staged_copy(model, disk, study=study)
    again = staged_copy(model, disk, study=study)
    assert (first.seconds is not None, again.seconds) == (True, None)
    assert contents(again) == {name: file.read_bytes() for name, file in model.files.items()}
    assert (first.folder.parent.stat().st_mode & 0o777, first.size) == (0o700, 100_002)


def test_processes_share_one_copy(model: Original, disk: Path, study: Path) -> None:
    processes = [start(model, disk, study, pause=0.5) for _ in range(3)]
    lines = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert {line[-1].split()[0] for line in lines} == {str(next(disk.glob("*/*/staged.json")).parent)}
    assert sorted(line[-1].split()[1] for line in lines) == ["False", "False", "True"]


def test_killed_copy_leaves_nothing_usable(model: Original, disk: Path, study: Path) -> None:
    process = start(model, disk, study, pause=60)
    assert process.stdout is not None
    assert process.stdout.readline() == "copying\n"
    assert len(left(disk)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = staged_copy(model, disk, study=study)
    assert left(disk) == {made.folder.name}
    assert contents(made) == {name: file.read_bytes() for name, file in model.files.items()}


def test_changed_original_is_copied_anew(model: Original, disk: Path, study: Path) -> None:
    first = staged_copy(model, disk, study=study)
    model.files["weights"].write_bytes(b"other")
    second = staged_copy(model, disk, study=study)
    assert (contents(second)["weights"], second.folder != first.folder) == (b"other", True)


def test_damaged_copy_is_made_again(model: Original, disk: Path, study: Path) -> None:
    first = staged_copy(model, disk, study=study)
    (first.folder / "weights").write_bytes(b"cut")
    assert contents(staged_copy(model, disk, study=study))["weights"] == model.files["weights"].read_bytes()


def test_wrong_hash_is_not_staged(model: Original, disk: Path, study: Path) -> None:
    wrong = Original(name="m", files=model.files, sha256={"weights": "0" * 64})
    with pytest.raises(NotStaged, match=r"weights has SHA-256 \w+… and was fetched with 000000000000…"):
        staged_copy(wrong, disk, study=study)
    assert left(disk) == set()


def test_full_disk_leaves_nothing(model: Original, small_disk: Path, study: Path) -> None:
    model.files["weights"].write_bytes(bytes(8_000_000))
    with pytest.raises(NotStaged, match=r"small has room for 6\.\d MB, and 8\.0 MB are needed"):
        staged_copy(model, small_disk, study=study)
    assert left(small_disk) == set()


def test_disk_that_fills_meanwhile_leaves_nothing(
    model: Original, small_disk: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program takes the room between the question and the copy."""
    monkeypatch.setattr(staged_copies, "_free", lambda _: 2**40)
    model.files["weights"].write_bytes(bytes(80_000_000))
    with pytest.raises(NotStaged, match="No space left on device"):
        staged_copy(model, small_disk, study=study)
    assert left(small_disk) == set()


def test_unused_copy_makes_room(model: Original, small_disk: Path, study: Path) -> None:
    model.files["weights"].write_bytes(bytes(4_000_000))
    first = staged_copy(model, small_disk, study=study)
    model.files["weights"].write_bytes(bytes(4_000_001))
    with pytest.raises(NotStaged, match="has room for"):  # the first is in use
        staged_copy(model, small_disk, study=study)
    first.use.close()
    second = staged_copy(model, small_disk, study=study)
    assert left(small_disk) == {second.folder.name}


def test_ended_study_removes_unused_copies(model: Original, disk: Path, study: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    copy = staged_copy(model, disk, study=study)
    lines: list[str] = []
    env = {"D": str(disk)}
    staged_copy(model, disk, study=tmp_path / "other").use.close()
    release_copies("$D", env, study=study, say=lines.append)
    assert (left(disk), lines) == ({copy.folder.name}, [])  # this process uses it, and so will another study
    copy.use.close()
    release_copies("$D", env, study=study, say=lines.append)
    assert left(disk) == {copy.folder.name}
    release_copies("$D", env, study=tmp_path / "other", say=lines.append)
    assert (left(disk), lines) == (set(), [f"removed {copy.folder}, a base model's copy on this node"])


def test_copy_unused_for_days_is_removed(model: Original, disk: Path, study: Path, tmp_path: Path) -> None:
    copy = staged_copy(model, disk, study=study)
    copy.use.close()
    used = copy.folder.with_suffix(".used")
    os.utime(used, (time.time(), time.time() - staged_copies.KEEP_S - 60))
    release_copies(str(disk), {}, study=tmp_path / "other", say=lambda _: None)
    assert left(disk) == set()


def test_another_users_folder_is_refused(model: Original, disk: Path, study: Path) -> None:
    shared = disk / f"hpotune-stage-{os.geteuid()}"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    with pytest.raises(NotStaged, match="is not this user's own folder"):
        staged_copy(model, disk, study=study)


def test_stage_folder_must_be_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"TMPDIR": str(tmp_path), "EMPTY": ""}
    (tmp_path / "x").mkdir()
    assert stage_folder("${TMPDIR}/x", env) == tmp_path / "x"
    for text, why in (("$EMPTY/x", "EMPTY is not set"), (f"{tmp_path}/none", "is not a folder on this node")):
        with pytest.raises(NotStaged, match=why):
            stage_folder(text, env)
    monkeypatch.setattr(staged_copies, "mount_type", lambda _: "lustre")
    with pytest.raises(NotStaged, match="is on lustre, which is no disk of the node's own"):
        stage_folder("$TMPDIR", env)


def test_lock_of_copying_is_released(model: Original, disk: Path, study: Path) -> None:
    copy = staged_copy(model, disk, study=study)
    with copy.folder.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
