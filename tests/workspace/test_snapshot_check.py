"""A code snapshot is run only as it was submitted: changed, added and planted files are refused."""

from __future__ import annotations

import json
import os
import py_compile
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.errors import StudyFileError
from hpotune.workspace.code_snapshot import CodeSnapshot, find_snapshot, snapshot_code
from hpotune.workspace.folder import StudyFolder

OTHER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def folder(home: Path) -> StudyFolder:
    return StudyFolder(path=home / "study")


@pytest.fixture
def code(home: Path, folder: StudyFolder) -> CodeSnapshot:
    """The snapshot of own.py, which imports beside.py and pack."""
    return take(home, folder)


def take(home: Path, folder: StudyFolder) -> CodeSnapshot:
    code = snapshot_code(folder, {"python": f"{home}/own.py:f"}, home=home).code
    assert code is not None
    return code


def edit(path: Path) -> None:
    path.write_text("A = 666\n")


def edit_record(path: Path) -> None:
    """Another content, and snapshot.json says so too."""
    edit(path)
    file = path.parents[1] / "snapshot.json"
    recorded = json.loads(file.read_text())
    recorded["files"] = dict.fromkeys(recorded["files"], "0" * 12)
    file.write_text(json.dumps(recorded))


def replace_link(path: Path) -> None:
    link = path.parent / "rows.jsonl"
    link.unlink()
    link.symlink_to("/etc/hostname")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "edited": (edit, "0/beside.py was changed"),
    "missing": (Path.unlink, "0/beside.py is missing"),
    "link": (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "0/beside.py cannot be read"),
    "fifo": (lambda path: (path.unlink(), os.mkfifo(path)), "0/beside.py was changed"),
    "record": (edit_record, "snapshot.json was changed"),
    "other link": (replace_link, "0/rows.jsonl was added"),
    "hidden module": (lambda path: edit(path.with_name(".hidden.py")), "0/.hidden.py was added"),
    "site": (lambda path: edit(path.with_name("sitecustomize.py")), "0/sitecustomize.py was added"),
    "byte code": (lambda path: edit(path.with_name("numpy.pyc")), "0/numpy.pyc was added"),
    "pth": (lambda path: edit(path.with_name("x.pth")), "0/x.pth was added"),
    "package": (lambda path: edit(path.parent / "pack" / "more.py"), "0/pack/more.py was added"),
    "top": (lambda path: edit(path.parents[1] / "json.py"), "json.py was added"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_snapshot_is_refused(name: str, home: Path, folder: StudyFolder, code: CodeSnapshot) -> None:
    change, what = CHANGES[name]
    change(code.path / "0" / "beside.py")
    with pytest.raises(StudyFileError, match=f"is not the code that was submitted: .*{what}"):
        find_snapshot(folder, code.hash)
    if name != "record":  # the study file's own record is right again
        with pytest.raises(StudyFileError, match=what):
            take(home, folder)


def test_unchanged_snapshot_is_found(home: Path, folder: StudyFolder, code: CodeSnapshot) -> None:
    (home / "later.csv").touch()
    assert take(home, folder) == code
    (code.path / "0" / "results.csv").write_text("1\n")  # as a program writes beside itself
    (code.path / "0" / "out").mkdir()
    assert find_snapshot(folder) == find_snapshot(folder, code.hash) == code


def test_planted_byte_code_is_deleted(folder: StudyFolder, code: CodeSnapshot, tmp_path: Path) -> None:
    source, planted = code.path / "0" / "beside.py", tmp_path / "planted.py"
    planted.write_text("A = 2\n")
    os.utime(planted, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    cached = Path(
        py_compile.compile(str(planted), cfile=str(source.parent / "__pycache__" / "beside.cpython-311.pyc"))
    )
    (cached.parent / "kernel.nbi").touch()  # numba's, which no import reads
    find_snapshot(folder, code.hash)
    assert [path.name for path in cached.parent.iterdir()] == ["kernel.nbi"]


def test_damaged_record_is_written_again(home: Path, folder: StudyFolder, code: CodeSnapshot) -> None:
    for text in ("", "[]", '{"roots": [], "files": {}}', "\0"):
        (code.path / "snapshot.json").write_text(text)
        with pytest.raises(StudyFileError, match="is damaged, so what was submitted is not known"):
            find_snapshot(folder, code.hash)
        assert take(home, folder) == code
        assert find_snapshot(folder, code.hash) == code


@needs_root
def test_snapshot_of_another_user(folder: StudyFolder, code: CodeSnapshot) -> None:
    os.chown(code.path / "0", OTHER, OTHER)
    with pytest.raises(StudyFileError, match=f"belongs to uid {OTHER}"):
        find_snapshot(folder, code.hash)


@needs_root
def test_planted_neighbour_is_not_imported(home: Path, folder: StudyFolder, code: CodeSnapshot) -> None:
    for name in ("numpy.py", "json/__init__.py"):  # nothing imports them by name
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).touch()
    (home / "theirs.csv").touch()
    for path in (home / "numpy.py", home / "json", home / "theirs.csv"):
        os.chown(path, OTHER, OTHER)
    take(home, folder)
    linked = {path.name for path in (code.path / "0").iterdir()}
    assert "theirs.csv" in linked
    assert not linked & {"numpy.py", "json"}
    os.chown(home / "beside.py", OTHER, OTHER)
    with pytest.raises(StudyFileError, match=rf"beside.py: belongs to uid {OTHER}.*would import it"):
        take(home, folder)


@needs_root
def test_program_of_a_colleague_is_run(home: Path, folder: StudyFolder) -> None:
    for name in ("own.py", "beside.py", "pack/__init__.py", "pack/part.py"):
        os.chown(home / name, OTHER, OTHER)
    take(home, folder)
