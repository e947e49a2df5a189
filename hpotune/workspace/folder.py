"""A study's folder: its paths, the study in it, and whether another study may use it.

study.yaml resolved.yaml extension.json provenance.json store.db|store.journal code/<hash>/ jobs/<id>/ trials/<n>/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.config import budget_extension
from hpotune.config.json_file import read_regular
from hpotune.config.load import Study, build_study
from hpotune.config.schema.execution import BudgetConfig
from hpotune.config.schema.study_config import NAME, StudyConfig
from hpotune.config.yaml_source import Source, Value, read_source, write_yaml
from hpotune.errors import StoreError, StudyFileError
from hpotune.workspace.atomic_files import file_mode, unwritable_message, write_atomic
from hpotune.workspace.fetched_lock import FILE as FETCHED
from hpotune.workspace.provenance import Provenance, read_provenance, write_provenance
from hpotune.workspace.trust import check_files, check_folder, check_trial, restrict_umask, store_files

if TYPE_CHECKING:
    from hpotune.records.rehearsal_record import RehearsalRecord

NEW_ATTEMPT_LINE = "--- hpotune: another attempt at this trial ---"
"""In a trial's log.txt, between the output of one attempt and the next. Earlier studies hold it as it is."""
IDENTITY_SECTIONS = (
    "name",
    "model",
    "data",
    "lora",
    "train",
    "score",
    "params",
    "constraints",
    "python",
    "command",
    "data_root",
    "search",
    "checks",
)
"""Sections whose change makes another study; the other sections may change between two calls."""
AFTER_SEARCH = ("finalists", "repeats")
"""Keys of `search` that no trial depends on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyFolder:
    """Paths in one study's folder, and what its files hold. Files are read when they are asked for."""

    path: Path
    shared: bool | None = field(default=None, compare=False)
    """Whether its group's members are trusted, as it was opened; None: not opened, and resolved.yaml says so."""

    @property
    def study_file(self) -> Path:
        """A copy of the user's study file."""
        return self.path / "study.yaml"

    @property
    def resolved_file(self) -> Path:
        """The study file with absolute paths: what jobs read. The study is complete once it exists."""
        return self.path / "resolved.yaml"

    @property
    def extension_file(self) -> Path:
        """What `hpotune extend` added to the budget."""
        return self.path / "extension.json"

    @property
    def provenance_file(self) -> Path:
        """Versions, host, home folder, store."""
        return self.path / "provenance.json"

    @property
    def rehearsal_file(self) -> Path:
        """Whether the study's trials were rehearsed; missing if the study was made by a worker or an early version."""
        return self.path / "rehearsal.json"

    @property
    def prepared(self) -> Path:
        """Rows that the rehearsal has tokenized, a file for each combination of `model` and `data`."""
        return self.path / "prepared"

    def rehearsal(self) -> RehearsalRecord | None:
        """What rehearsal.json says; None if it is missing or damaged."""
        from hpotune.records.rehearsal_record import RehearsalRecord  # a twentieth of `check --static`

        try:
            return RehearsalRecord.model_validate_json(read_regular(self.rehearsal_file))
        except (OSError, ValueError):
            return None

    @property
    def lock_file(self) -> Path:
        """Held while the study is prepared; the first file of a new study, and the last one that is removed."""
        return self.path / ".hpotune-lock"

    @property
    def jobs(self) -> Path:
        """One folder for each submitted job."""
        return self.path / "jobs"

    @property
    def cancelled(self) -> Path:
        """Exists from `cancel` until the study is continued."""
        return self.jobs / "cancelled"

    @property
    def nodes_tried_again(self) -> float:
        """When the user had nodes tried again that all counted as broken, in Unix seconds; 0.0: never."""
        try:
            return (self.jobs / "nodes-tried-again").stat().st_mtime
        except OSError:
            return 0.0

    def try_nodes_again(self) -> None:
        """Let what failed up to now count against no node."""
        (self.jobs / "nodes-tried-again").touch()

    def took_trial(self, job: str) -> Path:
        """Exists once a worker of the job has claimed a trial, or found none left to claim."""
        return self.jobs / job.split("_")[0] / "took-trial"

    @property
    def repeats(self) -> StudyFolder:
        """The study of the finalists' repeats, which need not exist."""
        return StudyFolder(path=self.path / "repeats", shared=self.shared)

    def trial(self, number: int) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / str(number)

    def trusted_trial(self, number: int) -> Path:
        """The folder of a trial, whose files are about to be read or written.

        Raises: StudyFileError where another user owns or may change one of them.
        """
        check_trial(self.path, self.trial(number), shared=self.shared)
        return self.trial(number)

    def load(self) -> Study:
        """The study with the budget of now, as its jobs read it.

        Raises: StudyFileError where there is none.
        """
        return self.in_force(self.load_original())

    def load_original(self) -> Study:
        """The study with the budget of its file, without what `hpotune extend` has added.

        Raises: StudyFileError where there is none.
        """
        return build_study(self.read_resolved())

    def read_resolved(self) -> Source:
        """The values of resolved.yaml.

        Raises: StudyFileError if there is none.
        """
        if not self.resolved_file.is_file():
            raise StudyFileError(
                f"{self.path}: holds no study (no resolved.yaml); `hpotune run` or `submit` makes one"
            )
        source = read_source(self.resolved_file)
        if isinstance(execution := source.values.get("execution"), dict):
            execution.pop("pack", None)  # a key of older versions, which had no effect
        return source

    def in_force(self, study: Study) -> Study:
        """The study with what `hpotune extend` has added to its budget.

        Raises: StudyFileError where the extension cannot be read.
        """
        budget = budget_extension.effective_budget(
            study.config.budget, budget_extension.read_extension(self.extension_file)
        )
        return replace(study, config=study.config.model_copy(update={"budget": budget}))

    def current_config(self, study: Study) -> StudyConfig:
        """The study's config with the budget of now; the study's own config where the files cannot be read.

        It costs two calls of stat(); files are read again only after a change.
        """
        try:
            budget = _budget(
                self.resolved_file, self.extension_file, _stamp(self.resolved_file, self.extension_file)
            )
        except (StudyFileError, ValueError, KeyError):
            return study.config
        return (
            study.config
            if budget == study.config.budget
            else study.config.model_copy(update={"budget": budget})
        )

    def provenance(self) -> Provenance:
        """What was recorded when the study was made.

        Raises: StudyFileError where it cannot be read, or where another user owns or may change the store's file.
        """
        found = read_provenance(self.provenance_file)
        check_files(self.path, *store_files(found.store), shared=self.shared)
        return found


def _stamp(*files: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Time, size and inode of each file: they differ after it was written again (each write is a rename)."""
    stamps: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            stat = file.stat()
            stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


@lru_cache(maxsize=16)
def _budget(resolved: Path, added: Path, stamp: object) -> BudgetConfig:
    """The budget with its extension; cached while the files have this stamp."""
    stands = BudgetConfig.model_validate(read_source(resolved).values["budget"])
    return budget_extension.effective_budget(stands, budget_extension.read_extension(added))


def home_of(target: Path) -> Path:
    """The folder that relative paths of a study file refer to: its own, or the home of the study whose copy it is.

    Raises: StudyFileError where that home is no longer known.
    """
    parent = StudyFolder(path=real_path(target.parent))
    return (
        open_folder(parent.path, own=False).provenance().home
        if parent.resolved_file.is_file()
        else parent.path
    )


def open_folder(path: Path, *, source: Source | None = None, own: bool = True) -> StudyFolder:
    """The study's folder of this path, which may be missing. `source`: the study file that names it.

    `own`: it is the verb's study, so that this process makes new files for this user alone, or for the folder's group
    where the study is shared; False: another study, which is only read.
    Raises: StudyFileError for a circle of links, or where another user owns or may change the folder.
    """
    real = real_path(path)
    shared = check_folder(real, source=source)
    if path.is_symlink():
        check_files(real, path, shared=shared)
    if own:
        restrict_umask(shared=shared)
    return StudyFolder(path=real, shared=shared)


def folder_of(target: Path, *, chosen: Path | None = None, own: bool = True) -> StudyFolder:
    """The folder that a study file or folder on the command line means: NAME beside the file, or the chosen one.

    `own`: as `open_folder`.
    Raises: StudyFileError where the target is neither, or where another user owns or may change the folder.
    """
    if target.is_dir():
        return open_folder(chosen or target, own=own)
    if chosen is not None:
        return open_folder(chosen, source=_readable_source(target), own=own)
    parent = StudyFolder(path=real_path(target.parent))
    if parent.resolved_file.is_file():
        return open_folder(parent.path, source=_readable_source(target), own=own)
    return folder_of_source(read_source(target), own=own)


def _readable_source(file: Path) -> Source | None:
    """The study file; None where it cannot be read, since the folder holds the study already."""
    try:
        return read_source(file)
    except StudyFileError:
        return None


def folder_of_source(source: Source, *, chosen: Path | None = None, own: bool = True) -> StudyFolder:
    """The folder of a study file that has been read: the chosen one, the one that the file is in, or NAME beside it.

    Raises: StudyFileError where another user owns or may change it.
    """
    parent = StudyFolder(path=real_path(source.path.parent))
    if chosen is not None:
        return open_folder(chosen, source=source, own=own)
    if parent.resolved_file.is_file():
        return open_folder(parent.path, source=source, own=own)
    name = source.values.get("name")
    usable = isinstance(name, str) and re.fullmatch(NAME, name)  # else the check of the file refuses it
    return open_folder(parent.path / (str(name) if usable else "no-valid-name:"), source=source, own=own)


def real_path(path: Path) -> Path:
    """The absolute path without links.

    Raises: StudyFileError for a circle of links.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        raise StudyFileError(f"{path}: is a circle of symbolic links; give another path") from None


def make_folder(folder: StudyFolder, source: Source, *, home: Path, store_url: str) -> None:
    """Write the study into its folder, or update the files of the same study there.

    resolved.yaml is written last: once it exists, the study is complete.
    Raises: StoreError when it cannot be written.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if not folder.provenance_file.exists():
            write_provenance(folder.provenance_file, home=home, store=store_url)
        mode = file_mode(source.path)  # a private study file stays private
        write_atomic(folder.study_file, source.text, mode)
        write_atomic(folder.resolved_file, write_yaml(source.values), mode)
    except OSError as error:
        raise StoreError(unwritable_message(folder.path, error)) from None


def check_same_study(folder: StudyFolder, values: Mapping[str, Value]) -> None:
    """Check that the folder holds this study, or nothing.

    Raises: StudyFileError naming the first section that differs.
    """
    if not folder.resolved_file.is_file():
        # The lock, test files of check_writable, and what `hpotune fetch` writes before there is a study.
        own = (".hpotune-", FETCHED)
        if folder.path.exists() and any(not path.name.startswith(own) for path in folder.path.iterdir()):
            raise StudyFileError(
                f"{folder.path}: holds other files and no study; rename the study (name:), use --folder, or remove "
                f"them; if it was one, restore its {folder.resolved_file.name}"
            )
        return
    if key := first_difference(folder, values):
        raise StudyFileError(
            f"{folder.path}: holds a study whose `{key}` differs from this file's; trials of two studies cannot be "
            f"compared: rename the study (name:), use --folder, or remove that folder (its {folder.resolved_file.name} "
            "says what it holds)"
        )


def first_difference(folder: StudyFolder, values: Mapping[str, Value]) -> str:
    """The first section in which the folder's study differs from these values; empty where none does.

    Raises: StudyFileError where the folder's study cannot be read.
    """
    before = folder.read_resolved().values
    return next((key for key in IDENTITY_SECTIONS if _identity(before, key) != _identity(values, key)), "")


def _identity(values: Mapping[str, Value], key: str) -> Value:
    """The part of a section that makes the study: what follows the search (finalists, repeats) may change later."""
    found = values.get(key)
    if key != "search" or not isinstance(found, dict):
        return found
    return {name: value for name, value in found.items() if name not in AFTER_SEARCH} or None


def difference_message(folder: StudyFolder, values: Mapping[str, Value]) -> str:
    """One line if the file was edited so that its folder holds another study; empty if it is the same."""
    key = first_difference(folder, values)
    return key and (
        f"{folder.path} holds a study whose `{key}` differs from this file's: run and submit will refuse; rename the "
        "study (name:), use --folder, or undo the edit"
    )
