"""The Pareto front of several objectives: which of its trials are certain, which others may be on it, hypervolume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import eligible_trials, pareto_front
from hpotune.schedule.ranking import by_label
from hpotune.workspace.folder import StudyFolder

if TYPE_CHECKING:
    from hpotune.reporting.score_items import ItemReader
    from hpotune.statistics.score_table import Floats

CERTAIN = 0.95
"""A trial on the front with a lower probability is uncertain; another one with more than 1 - CERTAIN may be on it."""
MOST = 200
"""Trials that are compared by their items: the front, and those that are the closest behind it."""
FAR = 5.0
"""Standard errors behind a trial of the front, in every objective, from which a trial is surely not on it."""

ErrorKind = Literal["items", "standard error", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontTrial:
    """A trial that is, or may be, on the Pareto front."""

    number: int
    probability: float | None
    """That no trial dominates it, given the errors of the scores; None where no objective has an error, or of a front
    of more than 200 trials."""

    @property
    def certain(self) -> bool:
        """Whether that is 95 % or more; also where the objectives have no errors."""
        return self.probability is None or self.probability >= CERTAIN


@dataclass(frozen=True, kw_only=True, slots=True)
class HypervolumeStep:
    """The hypervolume after a trial that has increased it."""

    finished: int
    """How many trials had finished by then."""
    number: int
    """The trial."""
    end: float | None
    """When it ended, in Unix seconds."""
    value: float
    """In the product of the objectives' units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hypervolume:
    """The volume of the objectives' space that the front dominates, as trials finished."""

    reference: Mapping[str, float]
    """The reference point by objective: the worst value on the front, and a tenth of its range beyond. So it changes as
    the front does: values of two outputs can be compared only if it is the same."""
    steps: tuple[HypervolumeStep, ...]
    """Oldest first."""
    finished: int
    """Finished trials that it counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParetoFront:
    """The Pareto front of a study with several objectives."""

    members: tuple[FrontTrial, ...]
    """The trials that no other dominates, as measured; best by the first objective first."""
    candidates: tuple[FrontTrial, ...]
    """Other trials that may be on the front: with a probability above 5 %, the most probable first."""
    errors: Mapping[str, ErrorKind]
    """Where each objective's errors are from. items: paired over the items that all compared trials have scored.
    standard error: of each trial, as if independent. none: the value counts as exact."""
    hypervolume: Hypervolume


def pareto_view(
    folder: StudyFolder, objectives: Sequence[Objective], rows: Sequence[TrialRow]
) -> ParetoFront | None:
    """The Pareto front; None with one objective, and while no trial has finished."""
    import numpy as np

    eligible = eligible_trials(rows)
    if len(objectives) < 2 or not eligible:
        return None
    signs = np.array([1.0 if objective.sense == "maximize" else -1.0 for objective in objectives])
    values = np.array([row.values for row in eligible]) * signs
    order = [eligible[index] for index in np.lexsort(-values.T[::-1])]
    front = pareto_front(objectives, order)
    compared = _compared(eligible, values, [row.number for row in front])
    probabilities, errors = _probabilities(folder, objectives, compared, signs)
    on_front = {row.number for row in front}
    others = [
        FrontTrial(number=row.number, probability=probabilities[row.number])
        for row in compared
        if row.number not in on_front and (probabilities.get(row.number) or 0.0) > 1 - CERTAIN
    ]
    return ParetoFront(
        members=tuple(
            FrontTrial(number=row.number, probability=probabilities.get(row.number)) for row in front
        ),
        candidates=tuple(sorted(others, key=lambda one: -(one.probability or 0.0))),
        errors=errors,
        hypervolume=_hypervolume(objectives, eligible, signs),
    )


def _compared(rows: Sequence[TrialRow], values: Floats, front: Sequence[int]) -> list[TrialRow]:
    """The trials of the front, and those that may be on it, the closest first; MOST at most.

    By each trial's own standard errors: those of paired differences are smaller.
    """
    import numpy as np

    known = np.array([[error or 0.0 for error in (*row.stderrs, *[None] * len(row.values))] for row in rows])
    stderrs = known[:, : values.shape[1]]
    position = {row.number: index for index, row in enumerate(rows)}
    members = [position[number] for number in front][:MOST]
    behind = np.full(len(rows), -np.inf)
    for member in members:
        gaps = values[member] - values
        errors = np.hypot(stderrs[member], stderrs)
        # without an error a value that is not worse is surely not, whatever the difference
        scaled = np.where(
            errors > 0, gaps / np.where(errors > 0, errors, 1), np.where(gaps >= 0, np.inf, -np.inf)
        )
        behind = np.maximum(behind, scaled.min(axis=1))
    behind[members] = -np.inf
    closest = np.argsort(behind, kind="stable")[:MOST]
    return [rows[index] for index in closest if behind[index] < FAR]


def _probabilities(
    folder: StudyFolder, objectives: Sequence[Objective], rows: Sequence[TrialRow], signs: Floats
) -> tuple[dict[int, float], dict[str, ErrorKind]]:
    """The probability of each trial by its number, and where the errors of the objectives are from."""
    import numpy as np

    from hpotune.reporting.score_items import ItemReader, have_same_items, score_table
    from hpotune.statistics.pareto import front_probabilities

    parts: list[Floats | None] = []
    groups: list[int] = []
    errors: dict[str, ErrorKind] = {}
    tasks: dict[str, int] = {}
    for index, objective in enumerate(objectives):
        read_items: ItemReader = ItemReader(folder, objective)
        own = by_label(objectives, objective.label, rows)
        table = score_table(read_items, own, None)
        paired = table is not None and have_same_items(read_items, own)
        parts.append(None if table is None else table.parts)
        # the metrics of a task share its items
        groups.append(tasks.setdefault(objective.task or "", index) if paired else index)
        errors[objective.label] = "none" if table is None else "items" if paired else "standard error"
    if all(one is None for one in parts):
        return {}, errors
    values = np.array([row.values for row in rows]) * signs
    found = front_probabilities(values, parts, groups)
    return {row.number: float(one) for row, one in zip(rows, found, strict=True)}, errors


def _hypervolume(objectives: Sequence[Objective], rows: Sequence[TrialRow], signs: Floats) -> Hypervolume:
    import numpy as np

    from hpotune.statistics.hypervolume import hypervolume_history, reference_point

    ordered = sorted(rows, key=lambda row: (row.end or 0.0, row.number))
    costs = np.array([row.values for row in ordered]) * -signs
    reference = reference_point(costs)
    history = hypervolume_history(costs, reference)
    rises = np.flatnonzero(np.diff(history, prepend=0.0) > 0)
    labels = [objective.label for objective in objectives]
    return Hypervolume(
        finished=len(ordered),
        reference=dict(zip(labels, (float(one) for one in reference * -signs), strict=True)),
        steps=tuple(
            HypervolumeStep(
                finished=int(index) + 1,
                number=ordered[index].number,
                end=ordered[index].end,
                value=float(history[index]),
            )
            for index in rises
        ),
    )
