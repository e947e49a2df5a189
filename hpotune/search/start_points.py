"""The start points of a study: what its first trials take, whatever the algorithm, and where each comes from.

They are saved once, when the study is made, so that all workers use the same ones. Order: `search.start_from`, the
portfolio of past studies, the recommended setting. `save_start_points` writes, everything else is read-only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.space.ranges import Range
from hpotune.config.space.start_from import Point, fault, items, near_value, option
from hpotune.config.training_method import trains_whole
from hpotune.config.yaml_source import Value
from hpotune.search.base.storage_view import FIRST_KNOWN
from hpotune.search.base.unit_cube import Axis, Hint, Params, distribution, encode
from hpotune.search.propose import is_feasible

START_POINTS_KEY = "starts"
"""User attribute of the study that holds them."""
KNOWN_KEY = "known"
"""User attribute of the study that holds results of other studies, which its search learns from."""
RECOMMENDED: dict[str, float] = {
    "train.learning_rate": 2e-4,
    "lora.r": 16,
    "lora.lora_alpha": 32,
    "lora.lora_dropout": 0.05,
    "train.weight_decay": 0.01,
    "train.warmup_steps": 0.03,
}
"""Recommended values for LoRA fine-tuning; warm-up below 1 is a share of the run.

Such a setting as first trial and weak prior reduced the regret after 20 trials from 0.175 to 0.107 (eight surfaces)."""
RECOMMENDED_FULL = {name: value for name, value in RECOMMENDED.items() if name.startswith("train.")} | {
    "train.learning_rate": 2e-5
}
"""The same where all weights are trained: the rate of Stanford Alpaca and of many recipes since, a tenth of LoRA's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartPoint:
    """A point that one of the first trials takes."""

    params: Params
    """As Optuna stores them; the search chooses the values of names that are missing."""
    origin: str
    """Where it comes from, as the user reads it: `from ../old`, `recommended`."""
    value: float | None = None
    """Its value of the first objective in a past study; None: unknown."""
    known: bool = False
    """Whether the value counts as a result: no trial takes the point, and the search learns from it."""

    def as_stored(self) -> dict[str, Any]:
        """The start point as the study attribute holds it."""
        return {"params": self.params, "of": self.origin, "value": self.value}


def start_points_text(start_points: Sequence[StartPoint]) -> str:
    """`3 start points: 2 from ../old (0.61, 0.6), 1 recommended`; empty where there are none."""
    if not start_points:
        return ""
    groups: dict[str, list[StartPoint]] = {}
    for start in start_points:
        groups.setdefault(start.origin, []).append(start)
    parts = []
    for origin, group in groups.items():
        values = ", ".join(f"{start.value:.4g}" for start in group if start.value is not None)
        parts.append(f"{len(group)} {origin}" + (f" ({values})" if values else ""))
    return f"{len(start_points)} start point{'s' if len(start_points) > 1 else ''}: {', '.join(parts)}"


def save_start_points(storage: BaseStorage, study_id: int, start_points: Sequence[StartPoint]) -> bool:
    """Write the start points to the study. Returns False, and writes nothing, where they are settled already."""
    if start_points_settled(storage, study_id):
        return False
    taken = [start.as_stored() for start in start_points if not start.known]
    known = [start.as_stored() for start in start_points if start.known]
    if known:  # first: once the start points are there, they are settled
        storage.set_study_user_attr(study_id, KNOWN_KEY, known)
    storage.set_study_user_attr(study_id, START_POINTS_KEY, taken)
    return True


def known_trials(storage: BaseStorage, study_id: int, study: Study) -> list[FrozenTrial]:
    """The known results saved with the study, as finished trials with numbers from FIRST_KNOWN."""
    found: list[dict[str, Any]] = storage.get_study_user_attrs(study_id).get(KNOWN_KEY) or []
    distributions = {r.name: distribution(r) for r in study.space.searched}
    moment = datetime(2000, 1, 1)
    return [
        FrozenTrial(
            number=FIRST_KNOWN + index,
            trial_id=FIRST_KNOWN + index,
            state=TrialState.COMPLETE,
            value=None,
            values=[one["value"]],
            datetime_start=moment,
            datetime_complete=moment,
            params=dict(one["params"]),
            distributions={name: distributions[name] for name in one["params"]},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for index, one in enumerate(found)
    ]


def start_points_settled(storage: BaseStorage, study_id: int) -> bool:
    """Whether start points are saved with the study, or cannot be any more because a trial has a point."""
    if saved_start_points(storage, study_id) is not None:
        return True
    return any(trial.params for trial in storage.get_all_trials(study_id, deepcopy=False))


def saved_start_points(storage: BaseStorage, study_id: int) -> list[Params] | None:
    """The points saved with the study, in order; None where none were saved."""
    found: list[dict[str, Any]] | None = storage.get_study_user_attrs(study_id).get(START_POINTS_KEY)
    return None if found is None else [dict(one["params"]) for one in found]


def file_start_points(study: Study, config: StudyConfig) -> list[StartPoint]:
    """The start points that need no other study: the points written in `start_from`, then the recommended one."""
    points = [
        StartPoint(params=encode_point(study, i.point), origin="from the file")
        for i in items(study.template)
        if i.point
    ]
    return distinct_start_points([*points, *recommended_start_points(study, config)])


def distinct_start_points(start_points: Sequence[StartPoint]) -> list[StartPoint]:
    """The start points without repetitions; the first of equal points is kept."""
    kept: list[StartPoint] = []
    for start in start_points:
        if all(start.params != other.params for other in kept):
            kept.append(start)
    return kept


def encode_point(study: Study, point: Mapping[str, Value]) -> Params:
    """A valid point of the study file's values, as Optuna stores it."""
    return {r.name: encode(r, point[r.name]) for r in study.space.searched if r.name in point}


def prior_values(study: Study, config: StudyConfig) -> dict[str, Value]:
    """Values believed to be good, by name: `prior` of the file; with `auto` also those recommended for fine-tuning.

    A normal range gets no recommended value: its mean says what the user believes.
    """
    automatic = config.search.algorithm == "auto" and config.model is not None
    recommended = RECOMMENDED_FULL if trains_whole(study.base().train) else RECOMMENDED
    found: dict[str, Value] = {}
    for r in study.space.searched:
        usual = recommended.get(r.name) if automatic and r.measure is None else None
        if r.prior is not None:
            found[r.name] = r.prior
        elif usual is not None and not fault(r, usual):
            found[r.name] = usual
    return found


def recommended_start_points(study: Study, config: StudyConfig) -> list[StartPoint]:
    """The point of the prior values, completed with the middle of other ranges (first option of unordered choices).

    Where that violates a constraint, the other names are left to the search. Empty where no name has a prior value.
    """
    priors, space = prior_values(study, config), study.space
    if not priors:
        return []
    origin = "from `prior`" if any(r.prior is not None for r in space.searched) else "recommended"
    partial = encode_point(study, priors)
    complete = partial | {r.name: _middle(r) for r in space.searched if r.name not in priors}
    for params in (complete, partial):
        if is_feasible(space, params):
            return [StartPoint(params=params, origin=origin)]
    return []


def _middle(r: Range) -> Value:
    """The middle of a range by its prior measure, as Optuna stores it; of unordered choices the first."""
    unordered = r.kind == "choice" and not r.ordered
    axis = Axis(name=r.name, distribution=distribution(r), hint=Hint(normal=r.measure))
    found: Value = axis.value(0.0 if unordered else 0.5)
    return found


def point_within_ranges(study: Study, point: Mapping[str, Value]) -> tuple[Point, list[str]]:
    """A point of another study moved into this study's ranges, and the names whose values were changed or left out."""
    found: Point = {}
    changed = []
    for r in study.space.searched:
        if r.name not in point:
            continue
        value = point[r.name]
        if r.kind == "choice":
            index = option(r, value)
            near = None if index is None else r.options[index]
            missing = index is None
        else:
            near = near_value(r, value)
            missing = near is None
        if not missing:
            found[r.name] = near
        if missing or (near != value and fault(r, value)):
            changed.append(r.name)
    return found, changed
