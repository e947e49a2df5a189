"""Which metrics an lm-eval task or group gives, read from its own file; lm_eval is not imported.

Says nothing (null) where the file does not tell: tasks in Python, tags, metrics that are functions.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

from hpotune.config.lm_eval_tasks import TaskIndex
from hpotune.config.schema.study_config import Json


class _Loader(yaml.SafeLoader):
    """Safe, and blind to `!function`."""


_Loader.add_constructor("!function", lambda loader, node: None)


def task_metrics(index: TaskIndex, name: str) -> frozenset[str] | None:
    """The names that `score.objective.metric` may take with this task; null where its file does not tell."""
    entry = index.entries.get(name)
    if entry is None or entry.folder is None:
        return None
    try:
        file = _file(Path(entry.folder), name, key="task" if entry.members is None else "group")
        keys = _keys(file) if file else {}
    except (OSError, ValueError, yaml.YAMLError, TypeError):
        return None  # what lm-eval makes of such a file is its own to say
    listed = keys.get("metric_list" if entry.members is None else "aggregate_metric_list")
    found = (
        [item.get("metric") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    )
    names = frozenset(metric for metric in found if isinstance(metric, str))
    return names if names and len(names) == len(set(map(str, found))) else None


def _file(folder: Path, name: str, *, key: str) -> Path | None:
    """The file that defines the name."""
    line = re.compile(
        rf"^[\"']?{key}[\"']?[ \t]*:[ \t]*[\"']?{re.escape(name)}[\"']?[ \t]*(#.*)?$", re.MULTILINE
    )
    files = sorted(folder.glob("*.yaml"))
    return next(
        (file for file in files if line.search(file.read_text(encoding="utf-8", errors="replace"))), None
    )


def _keys(file: Path) -> dict[str, Json]:
    """The keys of a task file over those of the files it includes."""
    own: dict[str, Json] = yaml.load(file.read_text(encoding="utf-8", errors="replace"), Loader=_Loader)
    includes = own.pop("include", None) or []
    merged: dict[str, Json] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        merged |= _keys(Path(os.path.normpath(file.parent / include)))
    return {**merged, **own}
