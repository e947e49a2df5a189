"""What a metric's name says: whether high or low is better, and which metrics an lm-eval task has.

Metrics are words: `answer_rate` is not an `ter`. The metrics of a task are read from its own file; lm_eval is not
imported. None where the file does not say: tasks in Python, tags, metrics that are functions.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import yaml

from hpotune.config.lm_eval_tasks import TaskIndex

Sense = Literal["maximize", "minimize"]
_NAMES: dict[Sense, str] = {
    "maximize": "exact_match pass@1 pass_at_1",
    "minimize": "bits_per_byte brier_score",
}
_WORDS: dict[Sense, str] = {
    "maximize": "acc accuracy f1 em mcc bleu chrf rouge rouge1 rouge2 rougel rougelsum auc",
    "minimize": "loss perplexity ppl wer cer ter mse rmse mae",
}
_SPLITS = ("train", "eval", "val", "valid", "validation", "test")


def known_sense(metric: str) -> Sense | None:
    """The direction of a metric of a task or of training; None if no word of it decides, or two disagree."""
    name = metric.partition(",")[0].lower()  # after the comma comes a filter
    words = set(name.split("_"))
    found: list[Sense] = [
        sense for sense in _NAMES if name in _NAMES[sense].split() or words & set(_WORDS[sense].split())
    ]
    return found[0] if len(found) == 1 else None


def plain_sense(metric: str) -> Sense | None:
    """The direction of a user's own metric: only `loss`, `accuracy`, `f1` and the like, after the name of a split."""
    split, _, rest = metric.partition("_")
    name = rest if split in _SPLITS else metric
    return known_sense(name) if name in " ".join(_WORDS.values()).split() else None


class _Loader(yaml.SafeLoader):
    """Safe; reads `!function` as null."""


_Loader.add_constructor("!function", lambda loader, node: None)


def task_metrics(index: TaskIndex, name: str) -> frozenset[str] | None:
    """The values of `score.objective.metric` for this task; None if its file does not say."""
    entry = index.entries.get(name)
    if entry is None or entry.folder is None:
        return None
    try:
        file = _file(Path(entry.folder), name, key="task" if entry.members is None else "group")
        keys = _keys(file) if file else {}
    except (OSError, ValueError, yaml.YAMLError, TypeError):
        return None  # lm-eval reports what is wrong with such a file
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


def _keys(file: Path) -> dict[str, object]:
    """The keys of a task file over those of the files it includes."""
    own: dict[str, object] = yaml.load(file.read_text(encoding="utf-8", errors="replace"), Loader=_Loader)
    includes = own.pop("include", None) or []
    merged: dict[str, object] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        merged |= _keys(Path(os.path.normpath(file.parent / include)))
    return {**merged, **own}
