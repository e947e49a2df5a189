"""A study's folder: what lies where, and how a file is written so that nobody ever reads half of it.

study.yaml resolved.yaml extension.json provenance.json store.db|store.journal code/<hash>/ jobs/<id>/ trials/<n>/
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from hpotune.config import budget_extension
from hpotune.config.load import Study, load_study
from hpotune.config.schema.execution import BudgetConfig
from hpotune.config.schema.study_config import Json, StudyConfig
from hpotune.config.yaml_source import Value, read_source, write_yaml
from hpotune.errors import HpotuneError, StudyFileError

RECORDED = (
    "hpotune",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "lm-eval",
    "optuna",
    "submitit",
    "numpy",
)
ROOM = 1_000_000
"""Bytes that a new study needs at least: its files and an empty store."""
SAME = (
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
"""Sections that make a study what it is; the others may change between two calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyFolder:
    """Paths inside one study's folder; nothing is looked up before it is asked for."""

    path: Path

    @property
    def study_file(self) -> Path:
        """The user's file, as it was given."""
        return self.path / "study.yaml"

    @property
    def resolved_file(self) -> Path:
        """The same with absolute paths: what jobs read."""
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
    def lock_file(self) -> Path:
        """Held while the study is made or made ready; the first file of a new study, and the last to go."""
        return self.path / ".hpotune-lock"

    @property
    def jobs(self) -> Path:
        """One folder a submission."""
        return self.path / "jobs"

    @property
    def cancelled(self) -> Path:
        """Stands from `cancel` until the study goes on."""
        return self.jobs / "cancelled"

    def took_trial(self, job: str) -> Path:
        """Stands where a job (or an element of it) was of use: it took a trial, or others had been quicker."""
        return self.jobs / job.split("_")[0] / "took-trial"

    def trial(self, number: int) -> Path:
        """The trial's own folder."""
        return self.path / "trials" / str(number)

    def load(self) -> Study:
        """The study as its jobs see it.

        Raises: StudyFileError where there is none.
        """
        return self.in_force(self.begun())

    def begun(self) -> Study:
        """The study with the budget that it began with.

        Raises: StudyFileError where there is none.
        """
        if not self.resolved_file.is_file():
            raise StudyFileError(
                f"{self.path}: holds no study (no resolved.yaml); `hpotune run` or `submit` makes one"
            )
        return load_study(self.resolved_file)

    def in_force(self, study: Study) -> Study:
        """The study with what `hpotune extend` has added to its budget.

        Raises: StudyFileError where that cannot be read.
        """
        budget = budget_extension.in_force(
            study.config.budget, budget_extension.read_extension(self.extension_file)
        )
        return replace(study, config=study.config.model_copy(update={"budget": budget}))

    def config_now(self, study: Study) -> StudyConfig:
        """The study's config with the budget of this moment: two looks at the disk, more only after a change.

        The study's own where the files cannot be read just now.
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

    def provenance(self) -> dict[str, Json]:
        """What was recorded when the study was made.

        Raises: StudyFileError where it cannot be read.
        """
        try:
            recorded: dict[str, Json] = json.loads(self.provenance_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise StudyFileError(
                f"{self.provenance_file}: is missing or damaged, so the study's store is not known; "
                "bring it back, or start again with --folder"
            ) from None
        return {**recorded, "store": self._store_here(recorded)}

    def _store_here(self, recorded: Mapping[str, Json]) -> Json:
        """The store's URL; of a folder that was moved or copied since, the store that came along inside it."""
        store, before = recorded.get("store"), recorded.get("folder")
        scheme, _, file = str(store).partition(":///")
        if not isinstance(before, str) or not Path(file).is_relative_to(before):
            return store
        return f"{scheme}:///{self.path.resolve() / Path(file).relative_to(before)}"


def _stamp(*files: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """What differs once a file was written again; each write moves another inode there."""
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
    """The budget in force; kept for as long as both files are those of the stamp."""
    stands = BudgetConfig.model_validate(read_source(resolved).values["budget"])
    return budget_extension.in_force(stands, budget_extension.read_extension(added))


def home_of(target: Path) -> Path:
    """Where relative paths of a study file start: its folder, or for a file inside a study's folder that study's home.

    Raises: StudyFileError where that home is not known any more.
    """
    parent = StudyFolder(path=target.parent.resolve())
    return Path(str(parent.provenance()["home"])) if parent.resolved_file.is_file() else parent.path


def folder_of(target: Path, *, chosen: Path | None = None) -> StudyFolder:
    """The folder that a study file or folder on the command line means: NAME beside the file, or the chosen one.

    Raises: StudyFileError where the target is neither.
    """
    if chosen is not None:
        return StudyFolder(path=chosen.resolve())
    if target.is_dir():
        return StudyFolder(path=target.resolve())
    parent = target.parent.resolve()
    if (parent / "resolved.yaml").is_file():
        return StudyFolder(path=parent)
    return StudyFolder(path=(parent / str(read_source(target).values.get("name"))).resolve())


def make_folder(
    folder: StudyFolder, study: Study, values: Mapping[str, Value], *, home: Path, store_url: str
) -> None:
    """Writes the study into its folder, or refreshes what may change in one that holds the same study.

    resolved.yaml comes last: where it stands, the study can be used.
    Raises: HpotuneError when it cannot be written.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if not folder.provenance_file.exists():
            made = {"home": str(home), "store": store_url, "folder": str(folder.path), **_circumstances(home)}
            write_atomic(folder.provenance_file, json.dumps(made, indent=1) + "\n")
        write_atomic(folder.study_file, study.source.path.read_text(encoding="utf-8"))
        write_atomic(folder.resolved_file, write_yaml(values))
    except OSError as error:
        raise HpotuneError(unwritable(folder, error)) from None


def check_same(folder: StudyFolder, values: Mapping[str, Value]) -> None:
    """Finds that a folder which holds a study holds this one.

    Raises: StudyFileError naming the first key that differs.
    """
    if not folder.resolved_file.is_file():
        own = ".hpotune-"  # the lock, and files that other processes only try out whether they can be written
        if folder.path.exists() and any(not path.name.startswith(own) for path in folder.path.iterdir()):
            raise StudyFileError(
                f"{folder.path}: holds other files, no study; rename the study (name:), use --folder, or remove them"
            )
        return
    if key := differing(folder, values):
        raise StudyFileError(
            f"{folder.path}: holds a study whose `{key}` differs from this file's; trials of two studies cannot be "
            "compared: rename the study (name:), use --folder, or remove that folder"
        )


def differing(folder: StudyFolder, values: Mapping[str, Value]) -> str:
    """The first section in which the folder's study is another than these values; empty where it is the same.

    Raises: StudyFileError where the folder's study cannot be read.
    """
    before = read_source(folder.resolved_file).values
    return next((key for key in SAME if before.get(key) != values.get(key)), "")


def other_study(folder: StudyFolder, values: Mapping[str, Value]) -> str:
    """One line where the file was edited so that its folder holds another study; empty where it is the same."""
    key = differing(folder, values)
    return key and (
        f"{folder.path} holds a study whose `{key}` differs from this file's: run and submit will refuse; rename the "
        "study (name:), use --folder, or undo the edit"
    )


def check_writable(folder: StudyFolder) -> None:
    """Finds that the folder, or the nearest one above it that is there, takes a file.

    Raises: HpotuneError where it does not: no permission, no space, a file in the way.
    """
    try:
        near = next(path for path in (folder.path, *folder.path.parents) if path.exists())
        with tempfile.NamedTemporaryFile(dir=near, prefix=".hpotune-room-") as file:
            file.write(bytes(ROOM))
    except OSError as error:
        raise HpotuneError(unwritable(folder, error)) from None


def wait_for_room(
    folder: StudyFolder,
    *,
    patience_s: float,
    pause_s: float,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Until the folder takes files again, or `stop` says that nobody wants it any more.

    Raises: HpotuneError when it does not for so many seconds.
    """
    until = time.monotonic() + patience_s
    while not stop():
        try:
            return check_writable(folder)
        except HpotuneError as error:
            if time.monotonic() >= until:
                raise
            say(f"waiting: {error}")
        time.sleep(pause_s)


def unwritable(folder: StudyFolder, error: OSError) -> str:
    """The complaint about a folder that takes no file."""
    return f"{folder.path}: cannot be written ({error.strerror}); free space, or choose another with --folder"


def write_atomic(path: Path, text: str) -> None:
    """Writes the whole file or nothing: to a temporary name, then moved. Mode 0644, whatever the umask makes of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes 0600; colleagues read a shared project folder
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _circumstances(home: Path) -> dict[str, Json]:
    """Versions, host and commit: what a reader needs to repeat the study."""
    versions = {}
    for name in RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "host": platform.node(),
        "versions": versions,
        "commit": _commit(home),
    }


def _commit(home: Path) -> str | None:
    """The commit of the folder of the study file, where there is one."""
    try:
        found = subprocess.run(
            ["git", "-C", str(home), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (found.stdout.strip() or None) if found.returncode == 0 else None
