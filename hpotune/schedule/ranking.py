"""Trials ranked by the rule of the study file (`best`), or by the first objective. Pure functions of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.config.space.metric_conditions import holds, names_of
from hpotune.records.trial import TrialRow


def measured_numbers(objectives: Sequence[Objective], row: TrialRow) -> dict[str, float]:
    """Everything that a rule can read of a trial, by name: objectives, metrics, seconds, gpu_hours."""
    found: dict[str, float] = {"seconds": row.seconds, "gpu_hours": row.gpu_hours}
    found |= {name: float(one) for name, one in row.metrics.items() if isinstance(one, (int, float))}
    labels = [objective.label for objective in objectives]
    found |= dict(zip(labels, row.values, strict=False))
    found |= {
        f"{label}_stderr": error
        for label, error in zip(labels, row.stderrs, strict=False)
        if error is not None
    }
    return {name: one for name, one in found.items() if not math.isnan(one)}


def measured_names(config: StudyConfig, rows: Iterable[TrialRow]) -> frozenset[str]:
    """The names of all numbers that any finished trial measured."""
    every = (measured_numbers(config.score.objective, row) for row in rows if row.state == "finished")
    return frozenset().union(*every)


def ranked_objective(objectives: Sequence[Objective], rule: BestRule | None) -> Objective:
    """What trials are ranked by, as an objective: the number of the rule, or the first objective."""
    if rule is None or rule.metric is None:
        return objectives[0]
    for objective in objectives:
        if objective.label == rule.metric:
            return objective.model_copy(update={"direction": rule.sense})
    task, _, metric = rule.metric.rpartition("/")
    return Objective(task=task or None, metric=metric, direction=rule.sense)


def by_ranked_value(
    objectives: Sequence[Objective], rule: BestRule | None, rows: Iterable[TrialRow]
) -> list[TrialRow]:
    """The trials with the number that they are ranked by as their only value; without those that did not measure it."""
    return by_label(objectives, ranked_objective(objectives, rule).label, rows)


def by_label(objectives: Sequence[Objective], label: str, rows: Iterable[TrialRow]) -> list[TrialRow]:
    """The trials with one number as their only value; without those that did not measure it."""
    found = []
    for row in rows:
        numbers = measured_numbers(objectives, row)
        if label in numbers:
            found.append(replace(row, values=(numbers[label],), stderrs=(numbers.get(f"{label}_stderr"),)))
    return found


def rule_violations(objectives: Sequence[Objective], rule: BestRule | None, row: TrialRow) -> tuple[str, ...]:
    """Why the rule leaves a trial out, as texts; empty where it does not."""
    if rule is None:
        return ()
    numbers = measured_numbers(objectives, row)
    texts = [] if rule.metric is None or rule.metric in numbers else [f"{rule.metric} was not measured"]
    return (*texts, *(text for one in rule.subject_to if (text := _violation(one, numbers))))


def _violation(condition: str, numbers: dict[str, float]) -> str:
    """Why a condition does not hold; empty where it does."""
    names = sorted(names_of(condition))
    lacking = [name for name in names if name not in numbers]
    if lacking:
        return f"{condition}: {', '.join(lacking)} was not measured"
    try:
        if holds(condition, numbers):
            return ""
    except ValueError as error:
        return f"{condition}: {error}"
    return f"not {condition} ({', '.join(f'{name} {numbers[name]:.5g}' for name in names)})"


def ranked(
    objectives: Sequence[Objective], rows: Sequence[TrialRow], rule: BestRule | None
) -> list[TrialRow]:
    """The trials that the rule allows, best first; of equal ones the earlier first."""
    by_number = {row.number: row for row in rows}
    allowed = [row for row in rows if not rule_violations(objectives, rule, row)]
    sign = -1.0 if ranked_objective(objectives, rule).sense == "maximize" else 1.0
    ordered = sorted(
        by_ranked_value(objectives, rule, allowed), key=lambda row: (sign * row.values[0], row.number)
    )
    return [by_number[row.number] for row in ordered]
