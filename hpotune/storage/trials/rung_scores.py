"""Rungs in the storage: record a trial's score, prune it there, list who may go on. schedule/promotion.py decides."""

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
from hpotune.records.trial import RungScore, TrialResult, TrialRow
from hpotune.schedule.promotion import RungDecisions, comparison_trial, is_below_quantile, rung_decisions
from hpotune.search.base.trial_update import TrialUpdate
from hpotune.storage.trials.study_trials import claim_order

IsWorse = Callable[[int, int, int], bool]
"""Whether a trial is significantly worse than another, compared item by item: (number, the other's number, rung)."""
RungOutcome = Literal["finished", "stopped", "rung", ""]
"""The result of recording a rung score: finished, waiting for promotion, pruned, or claimed by another worker."""


def score_of(trial: FrozenTrial, result: TrialResult, ladder: Ladder, *, breaks: bool) -> TrialUpdate:
    """A rung's score, to be written; also as Optuna's intermediate value, so that samplers and dashboards see it.

    `breaks`: whether it breaks a limit there. Empty where the trial has a score of the rung.
    """
    before = trial.user_attrs.get("rungs", [])
    assert result.rung is not None, "called for results of rungs"
    if any(stored["rung"] == result.rung for stored in before):
        return TrialUpdate()
    score = RungScore(
        rung=result.rung,
        budget=ladder.budgets[result.rung],
        values=tuple(result.values),
        stderrs=tuple(result.stderrs),
        breaks=breaks,
    )
    # Optuna has no intermediate values of several objectives
    steps = {result.rung: result.values[0]} if len(result.values) == 1 else {}
    return TrialUpdate(intermediate_values=steps, user_attrs={"rungs": [*before, asdict(score)]})


def claimable(config: StudyConfig, trials: Sequence[FrozenTrial], found: RungDecisions) -> list[FrozenTrial]:
    """Trials that may be claimed, in their order: paused, promoted, new; `found` says which."""
    by_number = {trial.number: trial for trial in trials}
    new = claim_order([by_number[number] for number in found.new], workers=config.budget.parallel)
    return [*(by_number[number] for number in (*found.paused, *found.promoted)), *new]


def is_unchanged(before: FrozenTrial, now: FrozenTrial) -> bool:
    """Whether no other worker has trained the trial to a rung between the two reads."""
    keys = ("rung", "rungs")
    return all(before.user_attrs.get(key) == now.user_attrs.get(key) for key in keys)


def is_pruned(
    config: StudyConfig,
    ladder: Ladder,
    rows: Sequence[TrialRow],
    row: TrialRow,
    *,
    metrics: Mapping[str, object],
    is_worse: IsWorse | None,
) -> bool:
    """Whether median, percentile or wilcoxon prunes a trial at the rung that it has just reached."""
    sense = config.score.objective[0].sense
    warm = _number(metrics, "steps") < _number(metrics, "warmup_steps")
    if is_below_quantile(ladder, rows, row, sense, warm=warm):
        return True
    other = comparison_trial(ladder, rows, row, sense, warm=warm)
    return (
        other is not None and is_worse is not None and is_worse(row.number, other, row.rung_scores[-1].rung)
    )


def _number(metrics: Mapping[str, object], name: str) -> float:
    value = metrics.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0


def prune_unpromotable(
    storage: BaseStorage, config: StudyConfig, trials: Sequence[FrozenTrial], rows: Sequence[TrialRow]
) -> None:
    """Prune the trials that wait for a promotion that can no longer come; `trials` and their `rows`: all, by number."""
    ladder = config.search.ladder
    assert ladder is not None, "called for studies with rungs"
    by_number = {trial.number: trial for trial in trials}
    for number in rung_decisions(config, ladder, rows).pruned:
        prune(storage, by_number[number])


def prune(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Set a trial PRUNED with the values of its last rung."""
    with suppress(UpdateFinishedTrialError):  # another process pruned it first
        values = trial.user_attrs["rungs"][-1]["values"]
        storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED, values)
