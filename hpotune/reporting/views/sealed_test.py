"""The result of the sealed test: the base model and the finalists on `score.test`, once it was opened.

Nothing of it decides anything: neither the search nor `best` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpotune.config.load import Study
from hpotune.config.metrics import known_sense
from hpotune.config.schema.study_config import Objective
from hpotune.records.derived_points import DerivedPoint
from hpotune.records.trial import TrialRow
from hpotune.reporting.derived.derived_study import (
    DerivedState,
    DerivedTrials,
    derived_trials,
    status_of_trials,
)
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.openings import Opening, opening_folder, read_openings

if TYPE_CHECKING:
    from hpotune.reporting.score_items import ItemReader

MAIN_METRICS = ("acc_norm", "acc", "exact_match", "f1", "pass@1", "bleu", "rougeL", "word_perplexity")
"""The metric of a task that is compared: the objective's own where the task has it, else the first of these."""
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedScore:
    """A score on a sealed task or group, or on one task of a group."""

    task: str
    metric: str
    value: float
    stderr: float | None

    @property
    def label(self) -> str:
        """`mmlu/acc`."""
        return f"{self.task}/{self.metric}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedTrial:
    """The base model or a finalist, as the sealed test scored it."""

    number: int | None
    """Of the study's trial; None: the base model."""
    state: Literal["waiting", "running", "scored", "failed"]
    scores: tuple[SealedScore, ...]
    """By the main metric of each entry of `score.test`, in its order; empty before it is scored."""
    subjects: tuple[SealedScore, ...]
    """By the main metric of each single task of the groups among them."""
    metrics: Mapping[str, float]
    """Every number of the sealed tasks, by `TASK/METRIC`."""
    trained_again: bool
    """Whether it was trained again for the test, since its adapter was not kept."""
    loss: float | None
    """Its validation loss in the test; None where there are no validation rows."""
    recorded_loss: float | None
    """Its validation loss in the study; None: none was recorded."""
    failure: str | None
    """Why it could not be scored."""

    @property
    def name(self) -> str:
        """`base model` or `trial 7`."""
        return "base model" if self.number is None else f"trial {self.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedDifference:
    """A finalist minus the base model on a sealed task; positive is better, or higher where the metric does not say."""

    number: int
    """Of the study's trial."""
    task: str
    metric: str
    value: float
    stderr: float | None
    low: float | None
    """The simultaneous 95 % interval: all differences of the test lie in theirs together with at least that
    probability (Bonferroni). None where no standard error is known."""
    high: float | None
    paired: bool
    """Whether the same items were compared one by one."""
    p_value: float | None
    """Two-sided, corrected by Holm over all differences of the test."""
    significant: bool
    """Whether the finalist differs from the base model, at 5 % over all differences of the test."""

    @property
    def label(self) -> str:
        """`mmlu/acc`."""
        return f"{self.task}/{self.metric}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedTestResult:
    """The latest opening of the sealed test, and how often it was opened."""

    study: str
    folder: Path
    """Of the opening's results."""
    openings: tuple[Opening, ...]
    """All openings, first one first; the results are the last one's."""
    state: DerivedState
    tasks: tuple[str, ...]
    """The entries of `score.test`."""
    base: SealedTrial | None
    trials: tuple[SealedTrial, ...]
    """The finalists, best by the search first."""
    differences: tuple[SealedDifference, ...]
    """Of each scored finalist to the base model, a task after the other."""
    trials_after: int
    """Trials of the search that finished after the first opening: they could have been chosen with its knowledge."""
    gpu_hours: float
    """Of this opening."""

    @property
    def tested(self) -> tuple[SealedTrial, ...]:
        """The base model and the finalists; empty before its study is made."""
        return tuple(one for one in (self.base, *self.trials) if one is not None)


def sealed_test_result(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow] = ()
) -> SealedTestResult | None:
    """The result of the latest opening; None before the first one. `rows`: the study's trials."""
    openings = read_openings(folder)
    if not openings:
        return None
    found = derived_trials(opening_folder(folder, openings[-1].number))
    tasks = tuple(dict.fromkeys(one.task for one in study.config.score.test))
    first = openings[0].opened
    after = sum(row.kind == "trial" and row.state == "finished" and (row.end or 0.0) > first for row in rows)
    if found is None:  # recorded, and not yet made
        return SealedTestResult(
            study=study.config.name,
            folder=opening_folder(folder, openings[-1].number),
            openings=openings,
            state="running",
            tasks=tasks,
            base=None,
            trials=(),
            differences=(),
            trials_after=after,
            gpu_hours=0.0,
        )
    from datetime import datetime

    status = status_of_trials(found, now=datetime.now())
    baseline = found.baseline
    base = _trial(study, tasks, None, baseline, loss=found.listed.base_loss)
    scored = [(point, found.row_of(point)) for point in found.listed.points]
    return SealedTestResult(
        study=study.config.name,
        folder=found.folder.path,
        openings=openings,
        state=status.state,
        tasks=tasks,
        base=base,
        trials=tuple(_trial(study, tasks, point, row, loss=point.loss) for point, row in scored),
        differences=tuple(_differences(study, found, tasks, scored, baseline)),
        trials_after=after,
        gpu_hours=status.gpu_hours,
    )


def _trial(
    study: Study,
    tasks: Sequence[str],
    point: DerivedPoint | None,
    row: TrialRow | None,
    *,
    loss: float | None,
) -> SealedTrial:
    done = row is not None and row.state == "finished"
    metrics = _sealed_numbers(row) if row is not None and done else {}
    names = list(dict.fromkeys(name.rpartition("/")[0] for name in metrics))
    measured = row.metrics.get("eval_loss") if row is not None else None
    return SealedTrial(
        number=point.trial if point is not None else None,
        state="scored" if done else row.state if row and row.state in ("running", "failed") else "waiting",
        scores=tuple(_scores(study, metrics, tasks)),
        subjects=tuple(_scores(study, metrics, [name for name in names if name not in tasks])),
        metrics=metrics,
        trained_again=row is not None and "train_seconds" in row.metrics,
        loss=float(measured) if isinstance(measured, (int, float)) else None,
        recorded_loss=loss,
        failure=f"{row.failure.cause}: {row.failure.message}"
        if row is not None and row.state == "failed" and row.failure
        else None,
    )


def _sealed_numbers(row: TrialRow) -> dict[str, float]:
    """The numbers of tasks among a trial's metrics: `TASK/METRIC`."""
    return {
        name: float(value)
        for name, value in row.metrics.items()
        if "/" in name and isinstance(value, (int, float))
    }


def _scores(study: Study, metrics: Mapping[str, float], tasks: Sequence[str]) -> Iterator[SealedScore]:
    for task in tasks:
        metric = main_metric(study, task, metrics)
        if metric is not None:
            yield SealedScore(
                task=task,
                metric=metric,
                value=metrics[f"{task}/{metric}"],
                stderr=metrics.get(f"{task}/{metric}_stderr"),
            )


def main_metric(study: Study, task: str, metrics: Mapping[str, float]) -> str | None:
    """The metric by which a sealed task is compared; None where the task gave no number."""
    found = [
        name.rpartition("/")[2]
        for name in metrics
        if name.rpartition("/")[0] == task and not name.endswith("_stderr")
    ]
    own = [objective.metric for objective in study.config.score.objective if objective.task]
    wanted = [*own, *MAIN_METRICS]
    plain = {metric.partition(",")[0]: metric for metric in reversed(found)}
    chosen = next((name for name in wanted if name in found), None)
    return chosen or next((plain[name] for name in wanted if name in plain), found[0] if found else None)


def _differences(
    study: Study,
    found: DerivedTrials,
    tasks: Sequence[str],
    scored: Sequence[tuple[DerivedPoint, TrialRow | None]],
    baseline: TrialRow | None,
) -> Iterator[SealedDifference]:
    """The differences of the scored finalists to the base model, with p-values corrected over all of them."""
    if baseline is None or baseline.state != "finished":
        return
    from hpotune.statistics.paired_tests import holm, normal_quantile

    pairs = [(point.trial, row) for point, row in scored if row is not None and row.state == "finished"]
    raw = [
        one
        for task in tasks
        for number, row in pairs
        if (one := _difference(study, found.folder, task, number, row, baseline)) is not None
    ]
    reach = -normal_quantile(LEVEL / 2 / max(1, len(raw)))
    known = [one.p_value for one in raw if one.p_value is not None]
    corrected = iter(holm(known))
    for one in raw:
        p_value = None if one.p_value is None else next(corrected)
        ends = (
            None if one.stderr is None else (one.value - reach * one.stderr, one.value + reach * one.stderr)
        )
        yield replace(
            one,
            p_value=p_value,
            significant=p_value is not None and p_value < LEVEL,
            low=ends[0] if ends else None,
            high=ends[1] if ends else None,
        )


def _difference(
    study: Study, folder: StudyFolder, task: str, number: int, row: TrialRow, baseline: TrialRow
) -> SealedDifference | None:
    """The difference on one task, not corrected, without an interval; None where the two have no number in common."""
    from hpotune.reporting.paired_difference import difference
    from hpotune.reporting.score_items import ItemReader

    mine, theirs = _sealed_numbers(row), _sealed_numbers(baseline)
    metric = main_metric(study, task, {name: mine[name] for name in mine if name in theirs})
    if metric is None:
        return None
    label = f"{task}/{metric}"
    sense = known_sense(metric.partition(",")[0]) or "maximize"
    read_items = ItemReader(folder, Objective(task=task, metric=metric, direction=sense))
    one, other = (
        replace(each, values=(numbers[label],), stderrs=(numbers.get(f"{label}_stderr"),))
        for each, numbers in ((row, mine), (baseline, theirs))
    )
    found = difference(read_items, 0, one, other)
    return SealedDifference(
        number=number,
        task=task,
        metric=metric,
        value=found.value,
        stderr=found.stderr,
        low=None,
        high=None,
        paired=found.paired,
        p_value=_p_value(read_items, one, other, value=found.value, stderr=found.stderr),
        significant=False,
    )


def _p_value(
    read_items: ItemReader, one: TrialRow, other: TrialRow, *, value: float, stderr: float | None
) -> float | None:
    """By the items where both have the same ones with equal weights, else by the normal distribution."""
    from hpotune.reporting.paired_difference import item_test
    from hpotune.statistics.paired_tests import normal_p_value

    found = item_test(read_items, one, other)
    if found is not None:
        return found.p_value
    return None if stderr is None else normal_p_value(value, stderr)
