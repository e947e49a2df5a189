"""The direction of a metric, derived from its name, and the metrics of an lm-eval task.

Names are compared word by word: `answer_rate` does not match `ter`. The metrics of a task are read from its YAML file;
lm_eval is not imported. They are unknown for tasks in Python, for tags, and where code names them; the rehearsal finds
those.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from hpotune.config.lm_eval_tasks import TaskIndex
from hpotune.config.text_files import read_file
from hpotune.errors import nearest

Sense = Literal["maximize", "minimize"]
_MEASURED = (
    "train_loss final_train_loss eval_loss eval_accuracy eval_f1 eval_f1_macro eval_f1_micro eval_matthews "
    "eval_pearson samples_per_second tokens_per_second sequences_per_second peak_memory_gb gpu_hours process_hours "
    "trainable_parameters train_seconds steps"
)
TRAINING_METRICS = tuple(_MEASURED.split())
"""What a trial measures without an lm-eval task."""
LABEL_METRICS: Mapping[str, tuple[str, ...]] = {
    "single_label_classification": ("eval_accuracy", "eval_f1", "eval_f1_macro", "eval_matthews"),
    "multi_label_classification": ("eval_accuracy", "eval_f1_macro", "eval_f1_micro"),
    "regression": ("eval_pearson",),
}
"""model.problem_type -> what a trial measures on the validation rows beside eval_loss; eval_f1 only of two classes."""
COSTS = ("seconds", "gpu_hours")
"""What every trial has: what it took, and not how good it is."""
_NAMES: dict[Sense, str] = {
    "maximize": "exact_match pass@1 pass_at_1",
    "minimize": "bits_per_byte brier_score",
}
_WORDS: dict[Sense, str] = {
    "maximize": "acc accuracy f1 em mcc matthews pearson bleu chrf rouge rouge1 rouge2 rougel rougelsum auc",
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskMetrics:
    """What the file of a task or group says about its scores."""

    names: frozenset[str] | None
    """Metrics without filters; None where code names them."""
    filters: tuple[str, ...] | None
    """Answer filters; `none` is lm-eval's name for no filter. None: those of the tasks of a group."""
    runs_code: bool = False
    """Whether the task executes what the model writes."""

    def mistake(self, task: str, metric: str) -> str | None:
        """The error of an objective with this metric; None if the task may have it.

        A metric with a filter is written `metric,filter`.
        """
        name = metric.partition(",")[0]
        names = frozenset({name}) if self.names is None else self.names
        kinds = ("none",) if self.filters is None else self.filters
        labels = {one if kind == "none" else f"{one},{kind}" for one in names for kind in kinds}
        if name not in names:
            return f"metric={metric!r} is not a metric of {task}; {nearest(name, labels)}"
        if self.filters is None or metric in labels:
            return None
        return f"score.objective: {task} has no metric {metric!r}; {nearest(metric, labels)}"


def task_metrics(index: TaskIndex, name: str) -> TaskMetrics | None:
    """The scores of this task or group, read from its file; None for a tag, a task in Python, or a file with errors."""
    entry = index.entries.get(name)
    if entry is None or entry.folder is None:
        return None
    try:
        file = _file(Path(entry.folder), name, key="task" if entry.members is None else "group")
        keys = _keys(file) if file else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError, TypeError):
        return None  # lm-eval itself reports errors in such a file
    if not keys or "class" in keys:
        return None
    if entry.members is not None:
        return TaskMetrics(names=_metric_names(keys.get("aggregate_metric_list")), filters=None)
    # A task that computes its scores itself may give more than it lists.
    names = None if "process_results" in keys else _metric_names(keys.get("metric_list"))
    return TaskMetrics(
        names=names, filters=_filter_names(keys.get("filter_list")), runs_code=bool(keys.get("unsafe_code"))
    )


def _metric_names(listed: object) -> frozenset[str] | None:
    """The names of a `metric_list`; None if there is none, or one of them is a function."""
    if not isinstance(listed, list):
        return None
    found = [item.get("metric") for item in listed if isinstance(item, dict)]
    names = frozenset(metric for metric in found if isinstance(metric, str))
    return names if names and len(names) == len(set(map(str, found))) else None


def _filter_names(listed: object) -> tuple[str, ...] | None:
    """The names of a `filter_list`; lm-eval's default if there is none."""
    if listed is None:
        return ("none",)
    named = isinstance(listed, list) and all(isinstance(one, dict) and "name" in one for one in listed)
    return tuple(str(one["name"]) for one in listed) if named and isinstance(listed, list) else None


def _file(folder: Path, name: str, *, key: str) -> Path | None:
    """The file that defines the name."""
    line = re.compile(
        rf"^[\"'{{]*{key}[\"']?[ \t]*:[ \t]*[\"']?{re.escape(name)}[\"']?[ \t]*([,}}#].*)?$", re.MULTILINE
    )
    files = sorted(folder.glob("*.yaml"))
    return next(
        (file for file in files if file.is_file() and line.search(read_file(file).decode(errors="replace"))),
        None,
    )


def _keys(file: Path) -> dict[str, object]:
    """The keys of a task file; they override the keys of the files that it includes."""
    own: dict[str, object] = yaml.load(read_file(file).decode(errors="replace"), Loader=_Loader)
    includes = own.pop("include", None) or []
    merged: dict[str, object] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        merged |= _keys(Path(os.path.normpath(file.parent / str(include))))
    return {**merged, **own}


def unsafe_code_mistake(key: str, task: str) -> str:
    """The error of a task that executes code without the study's consent; `key`: where the study names it."""
    return (
        f"{key}: {task} executes the code that the model writes (unsafe_code); to allow it on the nodes, without a "
        "sandbox, write score.confirm_unsafe_code: true"
    )


def other_form_warning(chat: bool) -> str:
    """The warning of a study that scores in another form than it trains; `chat`: the form of the scoring."""
    forms = ("in plain text", "in the chat template")
    return (
        f"score.chat_template: the tasks are asked {forms[chat]}, but the rows are trained {forms[not chat]} "
        f"(data.prompt); the scores are about another form than the one that is trained"
    )
