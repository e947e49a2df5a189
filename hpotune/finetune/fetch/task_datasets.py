"""The datasets that lm-eval's tasks read, from their task files: no dataset is loaded.

The factory of lm-eval merges includes, groups and overrides as it does in a trial; only the last step, in which a task
reads its dataset, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager, _factory

from hpotune.config.schema.study_config import ScoreConfig
from hpotune.finetune.model.hub import BUILDERS, local_path
from hpotune.finetune.scoring.library_state import quiet_libraries
from hpotune.finetune.scoring.task_loading import DataFolders, task_key, task_manager

IGNORED_OPTIONS = {"trust_remote_code", "cache_dir", "download_mode"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDataset:
    """A call of `load_dataset` that a task makes."""

    key: str
    """`score.objective: hellaswag`."""
    path: str
    """Of a repository on the hub."""
    name: str | None
    revision: str | None
    options: Mapping[str, object]
    """The other arguments."""


@dataclass(kw_only=True, slots=True)
class TaskDatasets:
    """What the tasks of a `score` section read."""

    found: list[TaskDataset] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Tasks whose data is found by code of their own."""


class _ListedTask:
    """A task in the eyes of lm-eval's groups: it has a name, and reads nothing."""

    def __init__(self, name: str) -> None:
        self.task_name = name


def task_datasets(names: Sequence[str], *, score: ScoreConfig, folders: DataFolders) -> TaskDatasets:
    """The datasets of tasks, groups and tags, those on this machine left out.

    Raises: UserError for an unknown task.
    """
    listed = TaskDatasets()
    if not names:
        return listed
    with quiet_libraries():
        manager, _ = task_manager(names, score=score, folders=folders)
        for name in names:
            key = f"{task_key(score, name)}: {name}"
            with _recorded_tasks(manager) as configs:
                manager._factory.build(manager._index[name], overrides=None, registry=manager._index)
            for config in configs:
                _add(config, key=key, data_root=folders.data_root, listed=listed)
    return listed


@contextmanager
def _recorded_tasks(manager: TaskManager) -> Iterator[list[dict[str, Any]]]:
    """A context in which lm-eval's factory makes no tasks; the configurations that it would make them of are added."""
    configs: list[dict[str, Any]] = []
    factory, original = manager._factory, _factory.Task

    def record(config: dict[str, Any]) -> _ListedTask:
        configs.append(config)
        return _ListedTask(str(config.get("_qualified_name") or config["task"]))

    class Inline(original):  # type: ignore[misc, valid-type]
        """In the name of lm-eval's class of tasks, which makes the tasks that are written inside a group."""

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> _ListedTask:
            return record(config)

    factory._build_task = lambda entry, overrides: record(factory._load_full_config(entry, overrides))
    _factory.Task = Inline
    try:
        yield configs
    finally:
        _factory.Task = original
        del factory._build_task


def _add(config: Mapping[str, Any], *, key: str, data_root: str | None, listed: TaskDatasets) -> None:
    own = config.get("class")
    path = config.get("dataset_path") or getattr(own, "DATASET_PATH", None)
    name = config.get("dataset_name") or getattr(own, "DATASET_NAME", None)
    if config.get("custom_dataset") is not None:
        listed.warnings.append(
            f"{key} finds its data by code of its own, which fetch does not follow; see that it works offline"
        )
        return
    if not isinstance(path, str) or path in BUILDERS or Path(path).expanduser().exists():
        return
    if local_path(path, data_root) != path:
        return
    options = {k: v for k, v in (config.get("dataset_kwargs") or {}).items() if k not in IGNORED_OPTIONS}
    revision = options.pop("revision", None)
    listed.found.append(TaskDataset(key=key, path=path, name=name, revision=revision, options=options))
