"""Whose study folders are used: another user's are refused by every verb, shared ones only where that was said."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpotune.cli import main
from hpotune.errors import StudyFileError
from hpotune.launch.prepare import prepare
from hpotune.warm_start.past_studies import read_study, sibling_studies
from hpotune.workspace.atomic_files import current_umask, write_atomic
from hpotune.workspace.folder import StudyFolder, open_folder
from hpotune.workspace.trust import SHARED, check_folder, store_files

Call = Callable[..., tuple[int, str]]
OTHER = 12345
GAMES, GAMES_GROUP = 5, 60
"""A user of every Debian, and the group that he is in."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The umask, put back: the check narrows it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def file(make_study: Callable[..., object], tmp_path: Path) -> Path:
    make_study(budget={"trials": 2})
    return tmp_path / "home" / "study.yaml"


@pytest.fixture
def folder(file: Path) -> StudyFolder:
    """A study with the files that a run leaves."""
    folder = prepare(file, chosen=None, data_root=None).folder
    for name in ("trials/1/log.txt", "jobs/.run.lock", "jobs/local/worker-0.log", "plan.json"):
        write_atomic(folder.path / name, "{}\n")
    return folder


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command line in this process; its exit code, and what it printed on stderr."""

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hpotune", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), capsys.readouterr().err

    return call


def hpotune(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpotune", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})


def refused(done: tuple[int, str], *words: str) -> None:
    code, line = done
    assert code == 2, line
    assert line.count("\n") == 1, line
    assert all(word in line for word in words), line


PARTS = (
    ".", "resolved.yaml", "study.yaml", "provenance.json", "store.db", "code", "jobs", "trials", ".hpotune-lock",
    "code/newest", "jobs/.run.lock", "plan.json",
)  # fmt: skip


@needs_root
@pytest.mark.parametrize("part", PARTS)
def test_foreign_file_is_refused(part: str, folder: StudyFolder) -> None:
    path = folder.path / part
    assert path.exists()
    os.chown(path, OTHER, OTHER)
    with pytest.raises(StudyFileError, match=rf"{path}: belongs to uid {OTHER}.*--folder"):
        open_folder(folder.path)


@needs_root
@pytest.mark.parametrize("part", ["store.db-journal", "extension.json", "jobs", ".hpotune-lock", "trials"])
def test_planted_link_is_refused(part: str, folder: StudyFolder, tmp_path: Path) -> None:
    path, precious = folder.path / part, tmp_path / "precious"
    precious.write_text("mine")
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(precious)
    os.chown(path, OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(StudyFileError, match=f"belongs to uid {OTHER}"):
        open_folder(folder.path)
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(("part", "mode"), [(".", 0o777), ("resolved.yaml", 0o666), ("code", 0o1777)])
def test_writable_folder_is_refused(part: str, mode: int, folder: StudyFolder) -> None:
    (folder.path / part).chmod(mode)
    with pytest.raises(
        StudyFileError, match=rf"may be changed by everyone \(mode {mode:04o}\).*chmod -R go-w"
    ):
        open_folder(folder.path)


VERBS: tuple[tuple[str, ...], ...] = (
    ("run",), ("status",), ("trials",), ("best",), ("why", "1"), ("logs", "1"), ("resume",), ("retry",), ("cancel",),
    ("extend", "--trials", "+1"), ("worker",), ("follow-up",), ("plan",), ("check",), ("doctor",), ("export", "1"),
    ("rehearse",),
)  # fmt: skip


@needs_root
def test_every_verb_refuses_planted_folder(
    here: Call, file: Path, folder: StudyFolder, tmp_path: Path
) -> None:
    # the study as the victim would make it, its code and its home replaced
    bad, mark = tmp_path / "bad", tmp_path / "mark"
    bad.mkdir()
    (bad / "pydantic.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (bad / "own.py").write_text(f"def bowl(x):\n    open({str(mark)!r}, 'w')\n    return 0\n")
    text = folder.provenance_file.read_text().replace(str(file.parent), str(bad))
    folder.provenance_file.write_text(text)
    shutil.copy(bad / "own.py", next(folder.path.glob("code/*/0/own.py")))
    for path in (folder.path, *folder.path.rglob("*")):
        os.chown(path, OTHER, OTHER, follow_symlinks=False)
    before = {path: path.lstat().st_mtime_ns for path in folder.path.rglob("*")}
    for verb, *options in VERBS:
        for target in (folder.path, file):
            refused(here(verb, target, *options), str(folder.path), f"uid {OTHER}")
    assert not mark.exists()
    assert {path: path.lstat().st_mtime_ns for path in folder.path.rglob("*")} == before


@needs_root
def test_planted_link_to_a_folder(here: Call, file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (file.parent / "bowl").symlink_to(tmp_path / "elsewhere")
    os.chown(file.parent / "bowl", OTHER, OTHER, follow_symlinks=False)
    refused(here("run", file), "bowl: belongs to uid 12345")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_own_link_to_a_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (file.parent / "bowl").symlink_to(tmp_path / "scratch")
    assert prepare(file, chosen=None, data_root=None).folder.path == tmp_path / "scratch"


@needs_root
def test_store_elsewhere_is_checked(here: Call, make_study: Callable[..., object], tmp_path: Path) -> None:
    make_study(store=f"sqlite:///{tmp_path}/all.db")
    file = tmp_path / "home" / "study.yaml"
    folder = prepare(file, chosen=None, data_root=None).folder
    for path in store_files(folder.provenance().store)[:3]:
        path.touch()
        os.chown(path, OTHER, OTHER)
        refused(here("status", folder.path), f"{path}: belongs to uid {OTHER}")
        os.chown(path, 0, 0)
        assert here("status", folder.path)[0] == 0


@needs_root
def test_planted_file_in_a_trial(here: Call, folder: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    for number, name in enumerate(["log.txt", "result.json"]):
        path = folder.trial(number) / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / "precious")
        os.chown(path, OTHER, OTHER, follow_symlinks=False)
    assert hpotune("run", folder.path).returncode == 0  # with other trials
    assert (tmp_path / "precious").read_text() == "mine"
    log = (folder.jobs / "local" / "worker-0.log").read_text()
    assert all(f"trials/{number}/" in log for number in (0, 1))
    assert log.count("belongs to uid 12345") >= 2
    for number in (0, 1):
        refused(here("logs", folder.path, number), "belongs to uid 12345")


@needs_root
def test_group_study_is_used_by_members(
    here: Call, make_study: Callable[..., object], tmp_path: Path
) -> None:
    make_study(shared_with="group")
    file = tmp_path / "home" / "study.yaml"
    folder = prepare(file, chosen=None, data_root=None).folder
    group = os.getegid()
    (folder.path / "plan.json").write_text("{}")
    (folder.path / "plan.json").chmod(0o664)
    os.chown(folder.path / "plan.json", OTHER, group)
    refused(here("status", folder.path), f"uid {OTHER}", "not in the group")
    os.chown(folder.path / "plan.json", 0, GAMES_GROUP)
    refused(here("status", folder.path), "the group games")
    os.chown(folder.path, 0, group)
    os.chown(folder.path / "plan.json", 0, group)
    assert here("status", folder.path)[0] == 0


AS_MEMBER = f"""
import os, sys
from pathlib import Path
from hpotune.workspace.trust import check_folder
os.setgroups([]); os.setgid({GAMES_GROUP}); os.setuid({OTHER})
check_folder(Path(sys.argv[1]))
"""


def as_member(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Check the folder as a user without a name who is in the group games."""
    return subprocess.run(
        [sys.executable, "-c", AS_MEMBER, str(folder)],
        capture_output=True, text=True, check=False, env={**os.environ, **env},
    )  # fmt: skip


@needs_root
def test_planted_word_is_not_enough(make_study: Callable[..., object], tmp_path: Path) -> None:
    make_study(shared_with="group")
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    folder = prepare(tmp_path / "home" / "study.yaml", chosen=None, data_root=None).folder
    for path in (folder.path, *folder.path.rglob("*")):
        os.chown(path, GAMES, GAMES_GROUP, follow_symlinks=False)
    alone = as_member(folder.path)
    assert alone.returncode == 1
    assert "StudyFileError" in alone.stderr
    assert f"set {SHARED}=group" in alone.stderr
    asked = as_member(folder.path, HPOTUNE_SHARED_WITH="group")
    assert asked.returncode == 0, asked.stderr


@pytest.mark.parametrize(
    ("mask", "shared"), [(0o077, None), (0o027, None), (0o002, None), (0, None), (0o022, "group")]
)
def test_files_keep_the_umask(
    mask: int, shared: str | None, make_study: Callable[..., object], tmp_path: Path
) -> None:
    make_study(budget={"trials": 1}, shared_with=shared)
    os.umask(mask)
    folder = prepare(tmp_path / "home" / "study.yaml", chosen=None, data_root=None).folder.path
    if mask == 0o077:
        assert hpotune("run", folder).returncode == 0
    forbidden = (mask & ~0o070) | 0o002 if shared else mask | 0o022
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & forbidden, (path, oct(path.stat().st_mode))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~forbidden
    assert stat.S_IMODE((folder / "provenance.json").stat().st_mode) == 0o666 & ~forbidden


def test_private_study_file_stays_private(file: Path) -> None:
    file.chmod(0o600)
    folder = prepare(file, chosen=None, data_root=None).folder
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.study_file, folder.resolved_file)] == [
        0o600
    ] * 2


def test_missing_folder_is_accepted(tmp_path: Path) -> None:
    check_folder(tmp_path / "none")


@pytest.mark.parametrize("shared", [None, "group"])
def test_another_study_changes_no_umask(
    shared: str | None, make_study: Callable[..., object], tmp_path: Path
) -> None:
    make_study(name="other", shared_with=shared)
    other = prepare(tmp_path / "home" / "study.yaml", chosen=None, data_root=None).folder.path
    make_study(shared_with=None if shared else "group")
    prepare(tmp_path / "home" / "study.yaml", chosen=None, data_root=None)
    own = 0o022 if shared else 0o002
    assert current_umask() == own
    assert read_study(other).name == "other"
    assert [past.name for past in sibling_studies(tmp_path / "home" / "bowl")] == ["other"]
    assert current_umask() == own


def test_group_may_write_an_sqlite_store(make_study: Callable[..., object], tmp_path: Path) -> None:
    make_study(shared_with="group", store="sqlite")
    folder = prepare(tmp_path / "home" / "study.yaml", chosen=None, data_root=None).folder.path
    assert stat.S_IMODE((folder / "store.db").stat().st_mode) & 0o060 == 0o060


def test_default_acl_opens_no_study(file: Path) -> None:
    entries = [
        (1, 7, -1),
        (4, 5, -1),
        (8, 7, GAMES_GROUP),
        (16, 7, -1),
        (32, 5, -1),
    ]  # acl(5): tag, rights, id
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(file.parent, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("this file system has no ACLs")
    folder = prepare(file, chosen=None, data_root=None).folder
    assert not [path for path in (folder.path, *folder.path.rglob("*")) if path.stat().st_mode & 0o022]
    open_folder(folder.path)
