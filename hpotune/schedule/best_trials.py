"""Which trials are the best ones: by the rule of the study file, else the best of one objective, or the Pareto front.

Pure functions of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.schedule.ranking import ranked


def best_trials(
    objectives: Sequence[Objective], rows: Sequence[TrialRow], rule: BestRule | None
) -> list[TrialRow]:
    """The best trial by the rule (`best`); without one also the Pareto front of several objectives, best first.

    Neither the baseline nor a trial that violates `score.constraints` is among them. While no trial has finished, the
    trials on the highest rung are compared; of studies with generations, those of the last generation.
    """
    if rule is not None:
        return ranked_trials(objectives, rows, rule)[:1]
    if len(objectives) > 1:
        return pareto_trials(objectives, rows)
    return _ordered(objectives, rows)[:1]


def pareto_trials(objectives: Sequence[Objective], rows: Sequence[TrialRow]) -> list[TrialRow]:
    """The Pareto front of several objectives, ordered by value and number, whatever the rule; as `best_trials`."""
    return pareto_front(objectives, _ordered(objectives, rows))


def _ordered(objectives: Sequence[Objective], rows: Sequence[TrialRow]) -> list[TrialRow]:
    eligible = eligible_trials(rows)
    if not any(row.state == "finished" and row.kind == "trial" for row in rows):
        eligible = _trials_on_highest_rung(rows)
    return sorted(eligible, key=lambda row: (_costs(objectives, row), row.number))


def ranked_trials(
    objectives: Sequence[Objective], rows: Sequence[TrialRow], rule: BestRule | None
) -> list[TrialRow]:
    """The finished trials that can be the best one, best first: by the rule, or by the first objective."""
    return ranked(objectives, eligible_trials(rows), rule)


def pareto_front(objectives: Sequence[Objective], ordered: Sequence[TrialRow]) -> list[TrialRow]:
    """The trials that no other trial dominates. `ordered`: by their values, best first."""
    front: list[TrialRow] = []
    for row in ordered:  # in this order a dominated trial is dominated by one of the front
        if not any(_dominates(objectives, other, row) for other in front):
            front.append(row)
    return front


def eligible_trials(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Finished trials that can be the best one; of several generations those of the highest."""
    eligible = [row for row in rows if row.state == "finished" and row.kind == "trial" and not row.breaks]
    if all(row.lineage is None for row in eligible):
        return eligible
    last = max((row.generation for row in eligible), default=0)
    return [row for row in eligible if row.generation == last]


def _trials_on_highest_rung(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Trials that were scored at the highest rung so far, with their values there."""
    scored = [
        row for row in rows if row.rung_scores and row.state != "failed" and not row.rung_scores[-1].breaks
    ]
    highest = max((row.rung_scores[-1].rung for row in scored), default=0)
    return [
        replace(row, values=row.rung_scores[-1].values, stderrs=row.rung_scores[-1].stderrs)
        for row in scored
        if row.rung_scores[-1].rung == highest
    ]


def _costs(objectives: Sequence[Objective], row: TrialRow) -> tuple[float, ...]:
    """Values with the sign changed where more is better: the smallest is the best."""
    return tuple(-v if o.sense == "maximize" else v for o, v in zip(objectives, row.values, strict=True))


def _dominates(objectives: Sequence[Objective], one: TrialRow, other: TrialRow) -> bool:
    """Whether a trial is at least as good in every objective, and better in one."""
    mine, theirs = _costs(objectives, one), _costs(objectives, other)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))
