"""The best trial, compared with the base model and with the other trials: what `best` and `run` show at the end.

By what trials are ranked: the rule of the study file (`best`), else the first objective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpotune.config.comparability import is_cost
from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.config.training_method import ADAPTER_FOLDER, MODEL_FOLDER
from hpotune.records.trial import TrialRow
from hpotune.reporting.paired_difference import Difference, difference, item_test
from hpotune.reporting.views.best_answer import BestAnswer, best_answer, cheapest
from hpotune.reporting.views.best_answer import ComparedTrial as ComparedTrial
from hpotune.reporting.views.best_answer import CorrectedGain as CorrectedGain
from hpotune.reporting.views.best_answer import CorrectedScore as CorrectedScore
from hpotune.reporting.views.best_answer import Recommendation as Recommendation
from hpotune.reporting.views.pareto_front import ParetoFront, pareto_view
from hpotune.reporting.views.repeats import RepeatsResult, repeats_result
from hpotune.reporting.views.rule_view import RuleView, rule_view
from hpotune.reporting.views.trial_view import TrialView, trial_view
from hpotune.schedule.best_trials import best_trials, eligible_trials, pareto_trials, ranked_trials
from hpotune.schedule.ranking import by_ranked_value, ranked_objective, rule_violations
from hpotune.workspace.folder import StudyFolder

if TYPE_CHECKING:
    from hpotune.statistics.paired_tests import PairedTest


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveView:
    """One objective of the study."""

    label: str
    direction: Literal["minimize", "maximize"]
    goal: float | None


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
    rule: RuleView | None
    """The rule that chose the best trial; None: the first objective."""
    ranked_by: ObjectiveView
    """What trials are ranked by, and `expected`, `gain`, `corrected_gain`, `gain_test` and `tied` are about: the number
    of the rule, or the first objective."""
    excluded_by_rule: Mapping[int, tuple[str, ...]]
    """Finished trials that the rule leaves out, and why."""
    candidates: int
    """Finished trials that can be the best one: of so many it was chosen."""
    best: TrialView | None
    """The best by the rule, or by the first objective; None while no trial is eligible."""
    front: tuple[TrialView, ...]
    """The Pareto front, best by the first objective first; empty with one objective."""
    pareto: ParetoFront | None
    """How certain the front is, and the hypervolume; None with one objective, and while no trial has finished."""
    tuned_model: bool
    """Whether the study fine-tunes a model; only then there is a base model to compare with."""
    baseline: TrialView | None
    """The base model's scores; None where it was not scored."""
    expected: CorrectedScore | None
    """The best trial's score on further items of the same kind; None where a standard error is not known."""
    gain: Difference | None
    """The best trial minus the base model, by `ranked_by`, as measured; None where that is a cost (train_seconds)."""
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
    repeats: RepeatsResult | None
    """The finalists, trained again with new seeds; None without `search.repeats`. Where it names a winner, that is
    `best`, and `expected`, `gain`, `corrected_gain`, `tied` and `recommended` are over seeds and items."""
    adapter: Path | None
    """The best trial's adapter, or its whole model; None where none was kept."""

    @property
    def deciding_repeats(self) -> RepeatsResult | None:
        """The repeats of the finalists where they decide; None where the scores of the search do."""
        if self.repeats is None or self.repeats.chosen is None or (self.front and self.rule is None):
            return None
        return self.repeats

    @property
    def decided_by_repeats(self) -> bool:
        """Whether the repeats of the finalists decide, and not the scores of the search."""
        return self.deciding_repeats is not None


def best_result(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[TrialRow],
    *,
    rule: BestRule | None = None,
    with_repeats: bool = True,
) -> BestResult:
    """The best trial (or the Pareto front), compared with the base model and with the other trials.

    `rule`: instead of that of the study file; the finalists were not chosen by it, so their repeats are not used.
    `with_repeats=False`: by the search alone.
    """
    from hpotune.reporting.score_items import ItemReader  # numpy: `status` does without

    objectives, used = config.score.objective, rule or config.best
    chosen = best_trials(objectives, rows, used)
    best = chosen[0] if chosen else None
    baseline = next((row for row in rows if row.kind == "baseline" and row.state == "finished"), None)
    ranked_by = ranked_objective(objectives, used)
    ordered = by_ranked_value(objectives, used, ranked_trials(objectives, rows, used))
    base = next(iter(by_ranked_value(objectives, used, [baseline])), None) if baseline else None
    if is_cost(ranked_by):
        base = None
    read_items = ItemReader(folder, ranked_by)
    raced = sum(row.race is not None for row in rows)
    answer, first = BestAnswer(), next(iter(by_ranked_value(objectives, used, chosen)), None)
    # a trial between two rungs, or one of a front that is not the first by this objective, has no answer
    if first is not None and ordered and ordered[0].number == first.number:
        answer = best_answer(read_items, ordered, base, raced=raced)
    front = pareto_trials(objectives, rows) if len(objectives) > 1 else []
    repeats = None
    if with_repeats and rule is None:
        repeats = repeats_result(folder, config, ranked_by, ordered, base, raced=raced)
    result = BestResult(
        study=config.name,
        folder=folder.path,
        objectives=tuple(map(_objective_view, objectives)),
        finished=sum(row.state == "finished" for row in rows),
        stopped=sum(row.state == "stopped" for row in rows),
        budget=config.budget.trials,
        rule=rule_view(objectives, used, stored=rule is None),
        ranked_by=_objective_view(ranked_by),
        excluded_by_rule=_excluded(objectives, used, rows),
        candidates=len(ordered) + raced,
        best=trial_view(objectives, best) if best else None,
        front=tuple(trial_view(objectives, row) for row in front),
        pareto=pareto_view(folder, objectives, rows),
        tuned_model=config.model is not None,
        baseline=trial_view(objectives, baseline) if baseline else None,
        expected=answer.expected,
        gain=difference(read_items, 0, first, base) if first and base else None,
        corrected_gain=answer.gain,
        gain_test=item_test(read_items, first, base) if first and base else None,
        tied=answer.tied,
        recommended=answer.recommended if config.model is not None else None,
        left_out={row.number: row.breaks for row in rows if row.state == "finished" and row.breaks},
        unmeasured=_unmeasured(config, rows),
        adapter=_adapter(folder, best) if best else None,
        repeats=repeats,
    )
    return _by_repeats(result, folder, objectives, rows)  # a front is not decided by one number


def _by_repeats(
    result: BestResult,
    folder: StudyFolder,
    objectives: Sequence[Objective],
    rows: Sequence[TrialRow],
) -> BestResult:
    """The result, decided by the repeats; as it is while they have not ended."""
    repeats = result.deciding_repeats
    if repeats is None or (chosen := repeats.chosen) is None:
        return result
    by_number = {row.number: row for row in rows}
    best, others = by_number[chosen.number], [one for one in repeats.trials if one.may_be_best]
    gain, error = None, chosen.gain
    if (
        result.gain is not None
        and error is not None
        and repeats.base_value is not None
        and chosen.mean is not None
    ):
        sign = 1.0 if result.ranked_by.direction == "maximize" else -1.0
        gain = replace(
            result.gain, value=sign * (chosen.mean - repeats.base_value), stderr=chosen.gain_stderr
        )
    return replace(
        result,
        best=trial_view(objectives, best),
        expected=chosen.expected,
        gain=gain,
        corrected_gain=chosen.gain,
        gain_test=None,
        tied=tuple(
            ComparedTrial(number=one.number, difference=one.behind)
            for one in others
            if one.behind is not None
        ),
        recommended=cheapest([by_number[one.number] for one in others]) if result.tuned_model else None,
        adapter=_adapter(folder, best),
    )


def _objective_view(objective: Objective) -> ObjectiveView:
    return ObjectiveView(label=objective.label, direction=objective.sense, goal=objective.goal)


def _excluded(
    objectives: Sequence[Objective], rule: BestRule | None, rows: Sequence[TrialRow]
) -> dict[int, tuple[str, ...]]:
    reasons = {row.number: rule_violations(objectives, rule, row) for row in eligible_trials(rows)}
    return {number: texts for number, texts in reasons.items() if texts}


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
    folders = (folder.trial(row.number) / name for name in (ADAPTER_FOLDER, MODEL_FOLDER))
    return next((path for path in folders if path.is_dir()), None)
