"""The studies in a student's folder, read for a teacher: whatever is wrong with one is a sentence, never an error.

A folder that another user owns may have been planted, so nothing of it is run, and only regular files inside it are
read: no link, and no store on a server, which would be asked with the reader's own password.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.load import Study
from hpotune.config.yaml_source import read_source
from hpotune.errors import HpotuneError
from hpotune.records.trial import TrialRow
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.provenance import read_provenance
from hpotune.workspace.trust import check_folder, store_files

MOST_FOLDERS = 2_000
"""Folders that are looked into below one that was named."""
_READ = (
    "resolved.yaml",
    "study.yaml",
    "provenance.json",
    "extension.json",
    "test",
    "test/openings.json",
    "jobs",
    "trials",
)
READ_ERRORS = (
    HpotuneError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What files of any content may raise where they are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundStudy:
    """Where a study of a student lies."""

    student: str
    """The name of the student's folder."""
    path: Path
    problem: str = ""
    """Why there is none, in one line; empty where there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadStudy:
    """A study of a student, as it could be read."""

    student: str
    path: Path
    folder: StudyFolder | None = None
    study: Study | None = None
    rows: tuple[TrialRow, ...] = ()
    problem: str = ""
    """Why it could not be read, in one line; empty where it could."""


def find_studies(target: Path) -> list[FoundStudy]:
    """The studies of a student's folder, of a folder of students, or the one of a study file or study folder.

    At least one is returned: without a study, its `problem` says so.
    """
    student = target.resolve().name
    if target.is_file():
        return [_of_file(target)]
    if not target.is_dir():
        return [FoundStudy(student=student, path=target, problem="there is no such folder")]
    if (target / "resolved.yaml").exists():
        return [FoundStudy(student=target.resolve().parent.name, path=target)]
    try:
        inner = _folders(target)
        studies = [path for path in inner if (path / "resolved.yaml").exists()]
        if studies:
            return [FoundStudy(student=student, path=path) for path in studies]
        found = [one for path in inner[:MOST_FOLDERS] for one in _of_student(path)]
    except OSError as error:
        return [FoundStudy(student=student, path=target, problem=_unreadable(error))]
    if any(not one.problem for one in found):
        return found
    return [FoundStudy(student=student, path=target, problem=_without_study(target))]


def _of_file(file: Path) -> FoundStudy:
    """The study that a study file makes, in the folder beside it."""
    student = file.resolve().parent.name
    try:
        name = read_source(file).values.get("name")
    except HpotuneError as error:
        return FoundStudy(student=student, path=file, problem=one_line(error))
    folder = file.parent if (file.parent / "resolved.yaml").is_file() else file.parent / str(name)
    if (folder / "resolved.yaml").is_file():
        return FoundStudy(student=student, path=folder)
    return FoundStudy(student=student, path=file, problem=f"the study of {file.name} was not started")


def _of_student(folder: Path) -> list[FoundStudy]:
    try:
        found = [path for path in _folders(folder) if (path / "resolved.yaml").exists()]
    except OSError as error:
        return [FoundStudy(student=folder.name, path=folder, problem=_unreadable(error))]
    if not found:
        return [FoundStudy(student=folder.name, path=folder, problem=_without_study(folder))]
    return [FoundStudy(student=folder.name, path=path) for path in found]


def _folders(folder: Path) -> list[Path]:
    """The visible folders in a folder, by name; links are left out."""
    with os.scandir(folder) as entries:
        names = [one.name for one in entries if one.is_dir(follow_symlinks=False) and one.name[0] not in "._"]
    return [folder / name for name in sorted(names)]


def _without_study(folder: Path) -> str:
    files = sorted(path.name for path in folder.glob("*.yaml"))
    return f"no study was started; study files: {', '.join(files[:3])}" if files else "holds no study"


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({error.strerror or error})"


def one_line(error: BaseException) -> str:
    """The first line of an error, and how many follow."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more)"


def read_study(found: FoundStudy) -> ReadStudy:
    """The study with its trials, or why it cannot be read."""
    if found.problem:
        return ReadStudy(student=found.student, path=found.path, problem=found.problem)
    try:
        path = found.path.resolve()
        trusted = _is_trusted(path)
        if not trusted:
            _check_inside(path, [path / name for name in _READ])
        folder = StudyFolder(path=path)
        study = folder.load()
        url = read_provenance(folder.provenance_file).store
        if not trusted:
            _check_inside(path, _store(url))
        rows = rows_of(url, study, through_optuna=False)
    except READ_ERRORS as error:
        return ReadStudy(student=found.student, path=found.path, problem=one_line(error))
    return ReadStudy(student=found.student, path=path, folder=folder, study=study, rows=tuple(rows))


def _is_trusted(path: Path) -> bool:
    try:
        check_folder(path)
    except HpotuneError:
        return False
    return True


def _store(url: str) -> Sequence[Path]:
    """The files of a store.

    Raises: ValueError for a store on a server.
    """
    files = store_files(url)
    if not files:
        raise ValueError(
            "its trials are on a server, which is asked only for your own studies: let the student run "
            "`hpotune lab check`"
        )
    return files


def _check_inside(folder: Path, paths: Sequence[Path]) -> None:
    """Raises: ValueError for a path outside the folder, and for a link; missing ones are accepted."""
    for path in paths:
        if not path.is_relative_to(folder):
            raise ValueError(f"{path} is outside the study's folder, which belongs to another user")
        if path.is_symlink():
            raise ValueError(f"{path} is a link, in a folder of another user")


def read_all(targets: Sequence[Path]) -> Iterator[ReadStudy]:
    """The studies of all these folders, in their order."""
    for target in targets:
        for found in find_studies(target):
            yield read_study(found)
