"""The best trial, compared with the base model and with the other trials: what `best` and `run` show at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.report.paired_difference import Difference, difference, not_significantly_worse
from hpotune.report.views.trial_view import TrialView, trial_view
from hpotune.schedule.best_trials import best_trials
from hpotune.workspace.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveView:
    """One objective of the study."""

    label: str
    direction: Literal["minimize", "maximize"]
    goal: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedTrial:
    """A trial, and the best trial minus it by the first objective."""

    number: int
    difference: Difference


@dataclass(frozen=True, kw_only=True, slots=True)
class BestResult:
    """The best trial or the Pareto front, with its comparisons."""

    study: str
    folder: Path
    objectives: tuple[ObjectiveView, ...]
    finished: int
    """Finished trials, the baseline included."""
    stopped: int
    """Pruned trials."""
    budget: int
    """`budget.trials`."""
    best: TrialView | None
    """The best by the first objective; None while no trial is eligible."""
    front: tuple[TrialView, ...]
    """The Pareto front, best by the first objective first; empty with one objective."""
    tuned_model: bool
    """Whether the study fine-tunes a model; only then there is a base model to compare with."""
    baseline: TrialView | None
    """The base model's scores; None where it was not scored."""
    gain: Difference | None
    """The best trial minus the base model, by the first objective."""
    tied: tuple[ComparedTrial, ...]
    """Trials that the best one is not significantly better than."""
    left_out: Mapping[int, tuple[str, ...]]
    """Finished trials that violate limits of `score.constraints`, and which."""
    unmeasured: Mapping[str, tuple[int, ...]]
    """Metrics of `score.constraints` that some finished trials did not measure, and these trials."""
    adapter: Path | None
    """The best trial's adapter; None where none was kept."""


def best_result(folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow]) -> BestResult:
    """The best trial (or the Pareto front), compared with the base model and with the other trials."""
    objectives = config.score.objective
    front = best_trials(objectives, rows)
    best = front[0] if front else None
    baseline = next((row for row in rows if row.kind == "baseline" and row.state == "finished"), None)
    return BestResult(
        study=config.name,
        folder=folder.path,
        objectives=tuple(ObjectiveView(label=o.label, direction=o.sense, goal=o.goal) for o in objectives),
        finished=sum(row.state == "finished" for row in rows),
        stopped=sum(row.state == "stopped" for row in rows),
        budget=config.budget.trials,
        best=trial_view(objectives, best) if best else None,
        front=tuple(trial_view(objectives, row) for row in front) if len(objectives) > 1 else (),
        tuned_model=config.model is not None,
        baseline=trial_view(objectives, baseline) if baseline else None,
        gain=difference(folder, objectives[0], 0, best, baseline) if best and baseline else None,
        tied=_tied(folder, objectives[0], best, rows) if best else (),
        left_out={row.number: row.breaks for row in rows if row.state == "finished" and row.breaks},
        unmeasured=_unmeasured(config, rows),
        adapter=_adapter(folder, best) if best else None,
    )


def _tied(
    folder: StudyFolder, objective: Objective, best: TrialRow, rows: Sequence[TrialRow]
) -> tuple[ComparedTrial, ...]:
    found = not_significantly_worse(folder, objective, best, rows)
    return tuple(ComparedTrial(number=row.number, difference=delta) for row, delta in found)


def _unmeasured(config: StudyConfig, rows: Sequence[TrialRow]) -> dict[str, tuple[int, ...]]:
    """Metrics of limits that some finished trials did not measure: those limits were not checked there."""
    always = {"seconds", *(objective.label for objective in config.score.objective)}
    names = [limit.metric for limit in config.score.constraints if limit.metric not in always]
    tried = [row for row in rows if row.state == "finished" and row.kind == "trial"]
    lacking = {
        name: tuple(row.number for row in tried if not isinstance(row.metrics.get(name), (int, float)))
        for name in names
    }
    return {name: numbers for name, numbers in lacking.items() if numbers}


def _adapter(folder: StudyFolder, row: TrialRow) -> Path | None:
    path = folder.trial(row.number) / "adapter"
    return path if path.is_dir() else None
