"""The best trial, compared with the base model and with the other trials: what `best` and `run` show at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.report.paired_difference import Difference, difference
from hpotune.report.views.trial_view import TrialView, trial_view
from hpotune.schedule.best_trials import best_trials, eligible_trials
from hpotune.workspace.folder import StudyFolder

if TYPE_CHECKING:
    from hpotune.report.score_items import ItemReader
    from hpotune.statistics.paired_tests import PairedTest


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


_COSTS = ("trainable_parameters", "train_seconds", "peak_memory_gb")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The cheapest of the trials that may be the best one."""

    number: int
    costs: Mapping[str, float]
    """Trained parameters, seconds of training, GB of memory on the fullest GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedScore:
    """A score or a gain, corrected for the choice of the best of many trials (statistics/winner.py)."""

    value: float
    """Median-unbiased."""
    low: float
    """The 95 % confidence interval."""
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedGain(CorrectedScore):
    """The best trial minus the base model, corrected for the choice; positive is better."""

    at_least: float
    """The one-sided 95 % lower bound."""

    @property
    def significant(self) -> bool:
        """Whether the best trial is better than the base model, at a level of 5 % that allows for the choice."""
        return self.at_least > 0


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
    expected: CorrectedScore | None
    """The best trial's score on further items of the same kind; None where a standard error is not known."""
    gain: Difference | None
    """The best trial minus the base model, by the first objective, as measured."""
    corrected_gain: CorrectedGain | None
    """The same, corrected for the choice of the best trial."""
    gain_test: PairedTest | None
    """The same by a test of the two trials' items, not corrected for the choice; None without common items."""
    tied: tuple[ComparedTrial, ...]
    """The other trials that may be the best one: with it they are a set that holds the truly best trial with a
    probability of 95 %."""
    recommended: Recommendation | None
    """The cheapest trial of that set; None without a set, or where the costs are not known."""
    left_out: Mapping[int, tuple[str, ...]]
    """Finished trials that violate limits of `score.constraints`, and which."""
    unmeasured: Mapping[str, tuple[int, ...]]
    """Metrics of `score.constraints` that some finished trials did not measure, and these trials."""
    adapter: Path | None
    """The best trial's adapter; None where none was kept."""


def best_result(folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow]) -> BestResult:
    """The best trial (or the Pareto front), compared with the base model and with the other trials."""
    from hpotune.report.score_items import ItemReader  # numpy: `status` does without

    objectives = config.score.objective
    read_items = ItemReader(folder, objectives[0])
    front = best_trials(objectives, rows)
    best = front[0] if front else None
    baseline = next((row for row in rows if row.kind == "baseline" and row.state == "finished"), None)
    answer = _answer(read_items, best, rows, baseline) if best else _Answer()
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
        expected=answer.expected,
        gain=difference(read_items, 0, best, baseline) if best and baseline else None,
        corrected_gain=answer.gain,
        gain_test=_gain_test(read_items, best, baseline) if best and baseline else None,
        tied=answer.tied,
        recommended=answer.recommended if config.model is not None else None,
        left_out={row.number: row.breaks for row in rows if row.state == "finished" and row.breaks},
        unmeasured=_unmeasured(config, rows),
        adapter=_adapter(folder, best) if best else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What the statistics say of the best trial; empty where its standard error is not known."""

    expected: CorrectedScore | None = None
    gain: CorrectedGain | None = None
    tied: tuple[ComparedTrial, ...] = ()
    recommended: Recommendation | None = None


def _answer(
    read_items: ItemReader, best: TrialRow, rows: Sequence[TrialRow], baseline: TrialRow | None
) -> _Answer:
    from hpotune.report.score_items import score_table
    from hpotune.statistics.best_set import MOST, best_set
    from hpotune.statistics.winner import winner

    sign = 1.0 if read_items.objective.sense == "maximize" else -1.0
    others = [row for row in eligible_trials(rows) if row.number != best.number]
    ordered = [best, *sorted(others, key=lambda row: -sign * row.values[0])]
    # a trial between two rungs, or one of a front that is not the first by this objective, has no answer
    if best.state != "finished" or any(sign * (row.values[0] - best.values[0]) > 0 for row in others):
        return _Answer()
    compared = ordered[:MOST]
    table = score_table(read_items, compared, baseline)
    if table is None:
        return _Answer()
    found = winner(table, 0, trials=len(ordered))
    ends = sorted((sign * found.score.low, sign * found.score.high))
    gain = found.gain
    chosen = [compared[position] for position in best_set(table, trials=len(ordered))]
    return _Answer(
        expected=CorrectedScore(value=sign * found.score.value, low=ends[0], high=ends[1]),
        gain=CorrectedGain(value=gain.value, low=gain.low, high=gain.high, at_least=gain.at_least)
        if gain
        else None,
        tied=tuple(
            ComparedTrial(number=row.number, difference=difference(read_items, 0, best, row))
            for row in chosen
            if row.number != best.number
        ),
        recommended=_cheapest(chosen),
    )


def _gain_test(read_items: ItemReader, best: TrialRow, baseline: TrialRow) -> PairedTest | None:
    from hpotune.report.score_items import same_items
    from hpotune.statistics.paired_tests import paired_test

    mine, theirs = read_items(best), read_items(baseline)
    if mine is None or theirs is None or not same_items(mine, theirs):
        return None
    if mine.weights.min() < mine.weights.max():
        return None
    sign = 1.0 if read_items.objective.sense == "maximize" else -1.0
    return paired_test(sign * mine.values, sign * theirs.values, clusters=mine.clusters)


def _cheapest(rows: Sequence[TrialRow]) -> Recommendation | None:
    """The trial with the fewest trained parameters, then the shortest training, then the least memory."""
    costs = [[row.metrics.get(name) for name in _COSTS] for row in rows]
    known = [[cost for cost in one if isinstance(cost, (int, float))] for one in costs]
    if any(len(one) < len(_COSTS) for one in known):
        return None
    position = min(range(len(rows)), key=lambda index: known[index])
    return Recommendation(number=rows[position].number, costs=dict(zip(_COSTS, known[position], strict=True)))


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
