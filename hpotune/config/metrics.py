"""The direction of a metric, derived from its name, and the metrics of an lm-eval task.

Names are compared word by word: `answer_rate` does not match `ter`. The metrics of a task are read from its YAML file;
lm_eval is not imported. They are unknown (None) for tasks in Python, for tags, and for metrics that are functions.
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
    """The direction of a metric of a task or of training; None if no word is known, or two words disagree."""
    name = metric.partition(",")[0].lower()  # the part after the comma is a filter
    words = set(name.split("_"))
    found: list[Sense] = [
        sense for sense in _NAMES if name in _NAMES[sense].split() or words & set(_WORDS[sense].split())
    ]
    return found[0] if len(found) == 1 else None


def plain_sense(metric: str) -> Sense | None:
    """The direction of a metric of a user's function or command: only names such as `loss`, `f1` or `eval_loss`."""
    split, _, rest = metric.partition("_")
    name = rest if split in _SPLITS else metric
    return known_sense(name) if name in " ".join(_WORDS.values()).split() else None


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `!function` as null."""


_Loader.add_constructor("!function", lambda loader, node: None)


def task_metrics(index: TaskIndex, name: str) -> frozenset[str] | None:
    """The valid values of `score.objective.metric` for this task; None if they are not known from its file."""
    entry = index.entries.get(name)
    if entry is None or entry.folder is None:
        return None
    try:
        file = _file(Path(entry.folder), name, key="task" if entry.members is None else "group")
        keys = _keys(file) if file else {}
    except (OSError, ValueError, yaml.YAMLError, TypeError):
        return None  # lm-eval itself reports errors in such a file
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
    """The keys of a task file; they override the keys of the files that it includes."""
    own: dict[str, object] = yaml.load(file.read_text(encoding="utf-8", errors="replace"), Loader=_Loader)
    includes = own.pop("include", None) or []
    merged: dict[str, object] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        merged |= _keys(Path(os.path.normpath(file.parent / str(include))))
    return {**merged, **own}
