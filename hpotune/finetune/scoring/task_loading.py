"""lm-eval's task objects of a study, and one clear error for each task that cannot be loaded.

Relative paths in own task files (`dataset_kwargs.data_files`, `data_dir`, a local `dataset_path`) are relative to the
folder of the study file; where nothing is there, to the folder of the task file. lm-eval itself takes them from the
folder in which the process was started.
"""

from __future__ import annotations

import glob
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetsError
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry
from lm_eval.tasks.manager import TaskDict

from hpotune.config.lm_eval_tasks import TaskIndex, task_index, unreadable_files
from hpotune.config.metrics import unsafe_code_mistake
from hpotune.config.paths import DATA_FILES
from hpotune.config.schema.study_config import ScoreConfig
from hpotune.errors import inner_reason
from hpotune.finetune.model.hub import BUILDERS, local_path
from hpotune.finetune.trial_errors import DataError, DatasetNotCached, TrialError, UserError
from hpotune.records.error_origin import error_chain

PIP = re.compile(r"pip install ([\w\[\].-]+)")
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml", "cv2": "opencv-python", "PIL": "pillow"}
"""Top-level module -> the name under which pip installs it, where they differ beyond a dash."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFolders:
    """Where relative paths of own task files and names of datasets are looked up."""

    home: str
    """The folder of the study file."""
    data_root: str | None


def task_key(score: ScoreConfig, name: str) -> str:
    """The key of the study file that names a task."""
    if any(objective.task == name for objective in score.objective):
        return "score.objective"
    return "score.test" if any(one.task == name for one in score.test) else "score.record"


def task_manager(
    names: Sequence[str], *, score: ScoreConfig, folders: DataFolders
) -> tuple[TaskManager, TaskIndex]:
    """lm-eval's task manager of the folders that are needed, and the index of all tasks.

    Raises: UserError for a task that is not in the index.
    """
    index = task_index(score.include_path)
    assert index is not None, "lm_eval is imported above"
    for name in names:
        if not index.exists(name):
            broken = unreadable_files(score.include_path)
            raise UserError(
                f"{task_key(score, name)}: unknown lm-eval task {name!r} {_hint(index.nearest(name))}"
                + (f"; a task file cannot be read: {broken[0]}" if broken else "")
            )
    own = Path(score.include_path).expanduser() if score.include_path else None
    needed = [str(folder) for folder in index.folders(names)]
    # The own folder is the last one, so that its tasks take precedence.
    manager = TaskManager(include_defaults=False, include_path=[*needed, *([str(own)] if own else [])])
    manager._factory = _Factory(own=own, folders=folders)
    return manager, index


def load_tasks(
    manager: TaskManager, names: Sequence[str], *, score: ScoreConfig, folders: DataFolders
) -> TaskDict:
    """The task objects of these names, their datasets read.

    Raises: UserError for a task file, package or setting; DataError for a dataset that cannot be read. Each names the
    task, its file and the innermost reason.
    """
    loaded: TaskDict = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        key = task_key(score, name)
        if name not in manager.task_index:
            broken = [*unreadable_files(score.include_path), "its task file cannot be read"]
            raise UserError(f"{key}: lm-eval cannot load the task {name}: {broken[0]}")
        try:
            part = manager.load([name])
        except _TaskFailure as failure:
            raise _explained(failure.error, key, failure.entry.name, failure.entry) from failure.error
        except Exception as error:
            raise _explained(error, key, name, manager.task_index[name]) from error
        for task in part["tasks"].values():
            _check_task(task, key=key, confirmed=score.confirm_unsafe_code)
        loaded["tasks"] |= part["tasks"]
        loaded["groups"] |= part["groups"]
        loaded["group_map"] |= part["group_map"]
    return loaded


def reason(error: BaseException) -> str:
    """The innermost error of a task's own code or file, with its type: `KeyError: 'text'` needs it."""
    inner = [one for one in error_chain(error) if str(one).strip()] or [error]
    return f"{type(inner[-1]).__name__}: {(str(inner[-1]).strip().splitlines() or [''])[0]}"


class _TaskFailure(Exception):
    """A task of a group or tag cannot be built; caught by `load_tasks`."""

    def __init__(self, entry: Entry, error: Exception) -> None:
        super().__init__(entry.name)
        self.entry = entry
        self.error = error


class _Factory(TaskFactory):  # type: ignore[misc]
    """lm-eval's factory, with absolute paths in own task files, and errors that know their task."""

    def __init__(self, *, own: Path | None, folders: DataFolders) -> None:
        super().__init__()
        self.own = own
        self.folders = folders

    def _build_task(self, entry: Entry, overrides: dict[str, Any] | None) -> Task:
        try:
            return super()._build_task(entry, overrides)
        except Exception as error:
            raise _TaskFailure(entry, error) from error

    def _load_full_config(self, entry: Entry, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        file = entry.yaml_path
        if self.own is not None and file is not None and file.resolve().is_relative_to(self.own.resolve()):
            for part in _mappings(config):
                _make_absolute(part, [Path(self.folders.home), file.parent], self.folders.data_root)
        return config


def _mappings(value: object) -> Iterator[dict[str, Any]]:
    """The mapping and all mappings in it: a group holds the configuration of inline tasks."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _mappings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _mappings(inner)


def _make_absolute(config: dict[str, Any], folders: Sequence[Path], data_root: str | None) -> None:
    """Make the paths of one task configuration absolute; those inside a dataset of the hub stay as they are."""
    path = config.get("dataset_path")
    if isinstance(path, str) and path not in BUILDERS and local_path(path, data_root) == path:
        found = _found(path, folders)
        if path.startswith((".", "/", "~")) and found is None:
            raise DataError(_missing("dataset_path", path, folders))
        if found is not None and _holds_rows(Path(found)):
            config["dataset_path"] = found
    given = config.get("dataset_kwargs")
    if isinstance(given, dict) and path in BUILDERS:
        config["dataset_kwargs"] = {
            name: _absolute_files(value, name, folders) if name in ("data_files", "data_dir") else value
            for name, value in given.items()
        }


def _absolute_files(value: object, key: str, folders: Sequence[Path]) -> object:
    if isinstance(value, Mapping):
        return {name: _absolute_files(inner, key, folders) for name, inner in value.items()}
    if isinstance(value, list):
        return [_absolute_files(inner, key, folders) for inner in value]
    if not isinstance(value, str) or "://" in value:
        return value
    found = _found(value, folders)
    if found is None:
        raise DataError(_missing(key, value, folders))
    return found


def _found(path: str, folders: Sequence[Path]) -> str | None:
    """The path, or pattern of paths, in the first folder that has it; None if none has it."""
    candidates = [os.path.normpath(folder / Path(path).expanduser()) for folder in folders]
    return next((full for full in candidates if os.path.exists(full) or glob.glob(full)), None)


def _holds_rows(path: Path) -> bool:
    """Whether it is a data file, or a folder with one: a folder that only has the name of a dataset is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return any(file.suffix in (*DATA_FILES, ".arrow", ".txt", ".gz") for file in files)


def _missing(key: str, path: str, folders: Sequence[Path]) -> str:
    tried = dict.fromkeys(os.path.normpath(folder / Path(path).expanduser()) for folder in folders)
    rule = "; relative paths start at the study file's folder, then at the task file's" * (len(tried) > 1)
    return f"{key} {path!r} does not exist ({' or '.join(tried)}){rule}"


def _explained(error: Exception, key: str, name: str, entry: Entry) -> TrialError:
    """The error of a trial for what lm-eval raised while it loaded a task."""
    file, config = entry.yaml_path, entry.cfg or {}
    where = f" ({file})" if file is not None else ""
    missing = missing_package(error, file)
    if missing is not None:
        return UserError(f"{key}: {name}{where} needs {missing}")
    if isinstance(error, DataError):
        kind = DatasetNotCached if isinstance(error, DatasetNotCached) else DataError
        return kind(f"{key}: the dataset of {name}{where} cannot be read: {error}")
    if any(isinstance(one, StopIteration) for one in error_chain(error)):
        return DataError(f"{key}: the dataset of {name}{where} cannot be read: it has no rows")
    called = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if any(file.parent.name == "evaluate" for file in called):
        metric = next(iter(re.findall(r"Module '([^']+)'", inner_reason(error))), "NAME")
        return UserError(
            f"{key}: {name}{where} needs the metric {metric} of the package evaluate, which is not in the cache; "
            f"download it once with internet access: python -c \"import evaluate; evaluate.load('{metric}')\""
        )
    if isinstance(error, (OSError, DatasetsError)):
        return DataError(
            f"{key}: the dataset of {name}{where} cannot be read ({inner_reason(error)}); correct the file, load the "
            "dataset once with internet access, or set data_root to its folder"
        )
    known = _known_mistake(error, config)
    return UserError(
        f"{key}: the task {name}{where} cannot be used: "
        + (known or f"{reason(error)}{_split_hint(error, config)}")
    )


def _known_mistake(error: Exception, config: Mapping[str, Any]) -> str | None:
    """What a task file lacks, where lm-eval raises an error that does not say so; None for another one."""
    frames = traceback.extract_tb(error.__traceback__)
    last, text = frames[-1] if frames else None, str(error)
    if any(frame.name == "get_filter" for frame in frames):
        unknown = next(iter(re.findall(r"'([^']+)'", text)), text)
        _, _, valid = text.rstrip('"').partition("vailable: ")
        return f"filter_list names the filter {unknown!r}, which lm-eval does not know" + (
            f"; valid: {valid}" if valid else ""
        )
    if isinstance(error, KeyError) and error.args == (None,):
        listed = config.get("metric_list") or []
        names = [one.get("metric") for one in listed if isinstance(one, dict) and "aggregation" not in one]
        shown = f" {names[0]!r}" if len(names) == 1 else ""
        return f"metric_list has a metric{shown} that lm-eval does not know; correct it, or give it an aggregation"
    if (
        isinstance(error, IndexError)
        and text == "string index out of range"
        and last
        and last.name == "__init__"
    ):
        return "doc_to_choice gives an empty choice for its first item"
    if isinstance(error, IndexError) and any(frame.name == "__getitem__" for frame in frames):
        return f"the split that is scored has no rows ({text})"
    return None


def _split_hint(error: Exception, config: Mapping[str, Any]) -> str:
    """Which key of the task file names a split that its dataset does not have, if that is the error."""
    inner = [*error_chain(error)][-1]
    name = inner.args[0] if isinstance(inner, KeyError) and inner.args else None
    keys = [
        key for key, split in config.items() if key.endswith("_split") and split == name and split is not None
    ]
    return f"; its dataset has no such split ({keys[0]})" if keys else ""


def missing_package(error: Exception, file: Path | None) -> str | None:
    """What a task cannot import, and what to do; None for an error of another kind."""
    chain = [*_beside(error)]
    absent = [one for one in chain if isinstance(one, ModuleNotFoundError)]
    advised = [found[1].rstrip(".") for one in chain if (found := PIP.search(str(one)))]
    if not absent and not (advised and isinstance(error, ImportError)):
        return None
    module = next((one.name for one in reversed(absent) if one.name), None)
    top = module.partition(".")[0] if module else advised[0] if advised else "that is named there"
    own = file.parent / f"{top}.py" if file is not None else None
    if own is not None and own.exists():
        return f"the module {top}, which is not on Python's path; add PYTHONPATH: {own.parent} to env.vars"
    if own is not None and str(error).startswith("Cannot import module"):  # of a !function
        return f"the module {top}, but there is neither {own} nor a package of that name; correct !function"
    pip = advised[0] if advised else DISTRIBUTIONS.get(top, top.replace("_", "-"))
    return f"the package {top}, which is not installed here; pip install {pip}"


def _beside(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from or beside: a module's name may be in an error that was caught."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _check_task(task: Task, *, key: str, confirmed: bool) -> None:
    """Raises: UserError for a task that runs code, reads images or sound, or has a metric that does not exist."""
    name = task.config.task
    if getattr(task, "UNSAFE_CODE", False) and not confirmed:
        raise UserError(unsafe_code_mistake(key, name))
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"{key}: {name} needs a model that reads images or sound; choose a task of text")
    functions = getattr(task, "_metric_fn_list", {})
    lost = [
        metric
        for metric, function in functions.items()
        if function is None and not task.config.process_results
    ]
    if lost:
        raise UserError(
            f"{key}: {name} has the metric {lost[0]!r}, which neither lm-eval nor the package evaluate can load here; "
            "pip install evaluate, or correct metric_list"
        )
    aggregations = getattr(task, "_aggregation_list", {})
    unknown = next((metric for metric, function in aggregations.items() if function is None), None)
    if unknown is not None:
        raise UserError(
            f"{key}: {name} has the metric {unknown!r} with an aggregation that lm-eval does not know; correct "
            "metric_list, e.g. aggregation: mean"
        )


def _hint(names: list[str]) -> str:
    return f"(did you mean {' or '.join(names)}?)" if names else "(`lm_eval ls tasks` lists all)"
