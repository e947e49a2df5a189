"""Rungs in the storage: what a trial has reached, who goes on, who ends there. schedule/promotion.py decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.schema.rungs import Ladder
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import Climbed, TrialResult, TrialRow
from hpotune.schedule.promotion import Turns, falls_behind, rival, turns
from hpotune.storage.trials.rows import in_turn

Worse = Callable[[int, int, int], bool]
"""Whether a trial is surely worse than another, item by item, at a rung: (number, the other's number, rung)."""
Reached = Literal["finished", "stopped", "rung", ""]
"""What became of a trial at its rung: it has finished, it ends there, it rests, or it was not the teller's."""


def record(
    storage: BaseStorage, trial: FrozenTrial, result: TrialResult, ladder: Ladder, *, breaks: bool
) -> None:
    """Tells what a trial reached, once; as Optuna's intermediate value too, so that samplers and dashboards see it.

    `breaks`: whether it broke a limit there.
    """
    before = trial.user_attrs.get("rungs", [])
    assert result.rung is not None, "asked only of rungs"
    if any(told["rung"] == result.rung for told in before):
        return
    this = Climbed(
        rung=result.rung,
        budget=ladder.budgets[result.rung],
        values=tuple(result.values),
        stderrs=tuple(result.stderrs),
        breaks=breaks,
    )
    if len(result.values) == 1:  # Optuna knows none of several objectives
        storage.set_trial_intermediate_value(trial._trial_id, result.rung, result.values[0])
    storage.set_trial_user_attr(trial._trial_id, "rungs", [*before, asdict(this)])


def in_line(config: StudyConfig, trials: Sequence[FrozenTrial], found: Turns) -> list[FrozenTrial]:
    """Trials that may be taken, in their order; of new ones each of many workers tries another first."""
    by_number = {trial.number: trial for trial in trials}
    fresh = in_turn([by_number[number] for number in found.fresh], workers=config.budget.parallel)
    return [*(by_number[number] for number in (*found.paused, *found.promoted)), *fresh]


def same_turn(seen: FrozenTrial, now: FrozenTrial) -> bool:
    """Whether nobody has climbed with a trial between our look at it and our taking it."""
    keys = ("rung", "rungs")
    return all(seen.user_attrs.get(key) == now.user_attrs.get(key) for key in keys)


def ends_here(
    config: StudyConfig,
    ladder: Ladder,
    rows: Sequence[TrialRow],
    row: TrialRow,
    *,
    metrics: Mapping[str, object],
    worse: Worse | None,
) -> bool:
    """Whether median, percentile or wilcoxon ends a trial at the rung it has just reached."""
    sense = config.score.objective[0].sense
    warm = _number(metrics, "steps") < _number(metrics, "warmup_steps")
    if falls_behind(ladder, rows, row, sense, warm=warm):
        return True
    other = rival(ladder, rows, row, sense, warm=warm)
    return other is not None and worse is not None and worse(row.number, other, row.climbed[-1].rung)


def _number(metrics: Mapping[str, object], name: str) -> float:
    found = metrics.get(name)
    return float(found) if isinstance(found, (int, float)) else 0.0


def close(
    storage: BaseStorage, config: StudyConfig, trials: Sequence[FrozenTrial], rows: Sequence[TrialRow]
) -> Turns:
    """What may be taken; trials that rest where nothing will let them go on any more are ended at their last values."""
    ladder = config.search.ladder
    assert ladder is not None, "asked only of studies with rungs"
    found = turns(config, ladder, rows)
    by_number = {trial.number: trial for trial in trials}
    for number in found.stop:
        stop(storage, by_number[number])
    return found


def stop(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Ends a trial at what it has reached."""
    with suppress(UpdateFinishedTrialError):  # somebody else saw it too
        values = trial.user_attrs["rungs"][-1]["values"]
        storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED, values)
