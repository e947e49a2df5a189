"""Objective, algorithm, counts and early stopping as the sections `score`, `search` and `budget`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpotune.api.katib.study_draft import StudyDraft
from hpotune.config.space.range_parsing import range_kind
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError, nearest
from hpotune.exchange.imports.katib_settings import (
    PARALLEL,
    KatibSearch,
    katib_search,
    katib_stopping,
    max_failed,
)

DIRECTIONS = ("minimize", "maximize")
MOST_RUNGS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What tune() says of the objective."""

    metric: str | None
    additional: Sequence[str] = ()
    direction: str = "maximize"
    goal: float | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)
    """Further keys of the objective in the study file."""

    @property
    def evaluates(self) -> bool:
        """Whether a metric is computed from rows that are held out of training."""
        return any(str(name).startswith("eval_") for name in (self.metric, *self.additional))


def put_goal(draft: StudyDraft, given: Goal, *, tasks: bool) -> None:
    """Put `score`. `tasks`: whether `TASK/METRIC` is a metric of an lm-eval task, as in fine-tuning.

    Raises: StudyFileError.
    """
    if not given.metric:
        raise StudyFileError(
            "objective_metric_name: is missing; needs the metric to optimize, such as train_loss"
        )
    if given.direction not in DIRECTIONS:
        hint = nearest(str(given.direction), DIRECTIONS)
        raise StudyFileError(f"objective_type: {given.direction!r} is unknown; {hint}")
    task, _, metric = given.metric.rpartition("/") if tasks else ("", "", given.metric)
    objective: dict[str, Value] = {
        **({"task": task} if task else {}),
        "metric": metric,
        "direction": given.direction,
    }
    if given.goal is not None:
        objective["goal"] = _finite(given.goal, "objective_goal")
    arguments = "objective_metric_name, objective_type" + (
        ", objective_goal" if given.goal is not None else ""
    )
    draft.put("score.objective", {**objective, **given.settings}, arguments)
    if given.additional and tasks:
        draft.put("score.record", _recorded(given.additional), "additional_metric_names")


_RECORDED = ("eval_loss", "train_loss", "samples_per_second", "peak_memory_gb", "gpu_hours")
"""As the default of `score.record`."""


def _recorded(names: Iterable[str]) -> list[Value]:
    """The default numbers, and those that are asked for; of `TASK/METRIC` the task, whose metrics are all recorded."""
    more = [name.rpartition("/")[0] or name for name in names]
    return [*dict.fromkeys([*_RECORDED, *more])]


def _finite(value: object, name: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value != value
        or abs(value) == float("inf")
    ):
        raise StudyFileError(f"{name}: {value!r} needs a finite number")
    return float(value)


def put_budget(
    draft: StudyDraft,
    *,
    trials: object,
    parallel: object,
    failed: object,
    baseline: bool,
    source: str = "max_trial_count",
) -> None:
    """Put `budget`. `baseline`: trial 0 scores the base model, beside the trials of Katib.

    Raises: StudyFileError.
    """
    if trials is None:
        raise StudyFileError(
            "max_trial_count: is missing; needs the number of trials, such as 12: a study has an end"
        )
    count = _count(trials, "max_trial_count", least=1)
    source = "max_trial_count, and the base model as trial 0" if baseline else "max_trial_count"
    draft.put("budget.trials", count + baseline, source)
    draft.put(
        "budget.parallel",
        PARALLEL if parallel is None else _count(parallel, "parallel_trial_count", least=1),
        "parallel_trial_count" if parallel is not None else "parallel_trial_count: Katib's default",
    )
    if failed is not None:
        most = max_failed(_count(failed, "max_failed_trial_count", least=0))
        draft.put("budget.max_failed", most, "max_failed_trial_count: the study stops at that many")


def _count(value: object, name: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyFileError(f"{name}: {value!r} needs a whole number of at least {least}")
    return value


def settings_of(given: Any, name: str) -> dict[str, Value]:  # noqa: ANN401 - Katib's own objects too
    """Settings as a mapping, from one, or from a list of `{name, value}` or of objects with these attributes.

    Raises: StudyFileError.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(key): value for key, value in given.items()}
    found: dict[str, Value] = {}
    for one in given if isinstance(given, (list, tuple)) else [None]:
        pair = (
            one if isinstance(one, Mapping) else {key: getattr(one, key, None) for key in ("name", "value")}
        )
        if pair.get("name") is None:
            raise StudyFileError(f"{name}: {given!r} needs a dict, or a list of names and values")
        found[str(pair["name"])] = pair.get("value")
    return found


def put_search(draft: StudyDraft, *, algorithm: str, settings: object, ranges: str) -> KatibSearch:
    """Put `search`. `ranges`: the section in which hyperband's resource is, `train` or `params`.

    Raises: StudyFileError for an algorithm or a setting that hpotune does not have.
    """
    found = katib_search(str(algorithm), settings_of(settings, "algorithm_settings"))
    if found.refused:
        raise StudyFileError(*(f"algorithm_name: {line}" for line in found.refused))
    for key, value in found.search.items():
        draft.put(f"search.{key}", value, "algorithm_name" if key == "algorithm" else "algorithm_settings")
    if found.resource is not None:
        name, most = found.resource
        if name not in draft.section(ranges):
            raise StudyFileError(
                f"algorithm_settings: resource_name={name!r} is no parameter of the experiment"
            )
        whole = int(most) if most == int(most) else most
        draft.put(f"{ranges}.{name}", whole, "algorithm_settings.r_l: the whole run; rungs are parts of it")
    return found


def put_early_stopping(draft: StudyDraft, given: object) -> None:
    """Put the pruner of an early stopping: `{"algorithm_name": "medianstop", "algorithm_settings": {...}}`.

    Raises: StudyFileError.
    """
    if given is None:
        return
    if isinstance(given, str):
        given = {"algorithm_name": given}
    if not isinstance(given, Mapping) or "algorithm_name" not in given or given.keys() - _STOPPING:
        raise StudyFileError(
            f"early_stopping: {given!r} needs a dict with algorithm_name (medianstop) and perhaps algorithm_settings"
        )
    settings = settings_of(given.get("algorithm_settings"), "early_stopping.algorithm_settings")
    found = katib_stopping(str(given["algorithm_name"]), settings)
    if found.refused:
        raise StudyFileError(*(f"early_stopping: {line}" for line in found.refused))
    for key, value in found.search.items():
        draft.put(f"search.{key}", value, "early_stopping")
    steps = _report_steps(draft, first=found.start_step)
    if steps:
        draft.put(
            "search.rungs", {"unit": "steps", "at": steps}, "early_stopping: start_step, at the logged steps"
        )
    else:
        draft.remarks.append(
            "early_stopping: start_step has no effect, as the number of steps is not known: trials are compared at a "
            "fifth, two fifths, … of their run (write max_steps, or study={'search': {'rungs': ...}})"
        )


_STOPPING = {"algorithm_name", "algorithm_settings"}


def _report_steps(draft: StudyDraft, *, first: int) -> list[Value]:
    """The logged steps from `first` on, a few of them, and the last step; empty where the steps are not fixed."""
    train = draft.section("train")
    most, every = train.get("max_steps"), train.get("logging_steps", 500)
    if (
        range_kind(most)
        or range_kind(every)
        or not isinstance(most, int)
        or not isinstance(every, (int, float))
    ):
        return []
    if most <= 0 or every < 1 or first * every >= most:
        return []
    reports = [int(every) * n for n in range(first, int(most / every) + 1) if int(every) * n < most]
    stride = -(-len(reports) // MOST_RUNGS)
    return [*reports[::stride], most]
