"""The repeats of the finalists: their scores with new seeds, and the best of them over seeds and items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.records.derived_points import DerivedPoint
from hpotune.records.trial import TrialRow
from hpotune.reporting.derived.derived_study import DerivedTrials, derived_trials, status_of_trials
from hpotune.reporting.paired_difference import Z_95, Difference
from hpotune.reporting.views.best_answer import CorrectedGain, CorrectedScore
from hpotune.schedule.ranking import by_label
from hpotune.workspace.folder import StudyFolder

if TYPE_CHECKING:
    from hpotune.statistics.repeated_finalists import RepeatedFinalists, RepeatedScore
    from hpotune.statistics.seed_spread import CrossedError

FEWEST_SEEDS = 2
"""A finalist with fewer finished repeats is not compared."""
LARGEST = 1e150
"""Scores beyond it are not compared: their squares are not numbers any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """One further training of a finalist."""

    number: int | None
    """Of the trial in STUDY/repeats; None before it is started."""
    seed: int
    state: Literal["waiting", "running", "finished", "failed"]
    value: float | None
    """By what trials are ranked; None before it has finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreError:
    """The error of a mean over seeds and items, by its two sources."""

    stderr: float
    """Over both: the root of the sum of the squares of the other two."""
    items: float | None
    """Standard error by the items; None where it is not known, and then it is not in `stderr`."""
    seeds: float
    """Standard error by the spread between seeds."""
    degrees: float | None
    """Degrees of freedom of Student's t (Satterthwaite); None: infinitely many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedTrial:
    """A finalist, trained again."""

    number: int
    """Of the study's trial."""
    search_value: float
    """Its score in the search, which had a part in choosing it."""
    repeats: tuple[Repeat, ...]
    mean: float | None
    """Over the finished repeats; None without any. The search's own score is left out."""
    error: ScoreError | None
    """Of the mean; None where it is not compared."""
    expected: CorrectedScore | None
    """Its score with further seeds on further items, corrected for the choice of the finalists, and of the winner."""
    gain: CorrectedGain | None
    """The same minus the base model."""
    gain_stderr: float | None
    """Standard error of its mean minus the base model, widened so that 1.96 of it are Student's interval."""
    behind: Difference | None
    """The winner's mean minus its own. Its standard error, over seeds and items, is widened so that 1.96 of it hold the
    interval that is corrected for the choice of the finalists. None for the winner, and where it is not compared."""
    may_be_best: bool
    """Whether it is in the set that holds the best finalist with a probability of 95 %."""

    @property
    def values(self) -> tuple[float, ...]:
        """The scores of the finished repeats."""
        return tuple(one.value for one in self.repeats if one.value is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatsResult:
    """The repeats of the finalists of a study."""

    folder: Path
    state: Literal["not started", "running", "failed", "done"]
    """failed: some could not be trained, or a limit of the budget ended them; the others count."""
    stop: str | None
    """Why no further one starts although some are left; None where none is left, or all may start."""
    seeds: int
    """`search.repeats`: new seeds of each finalist."""
    unchanged: bool
    """Whether every repeat has exactly the score of the search: seeds make no difference, and the search decides."""
    label: str
    """What trials are ranked by."""
    trials: tuple[RepeatedTrial, ...]
    """The finalists, in the order in which the search chose them."""
    search_best: int | None
    """The best trial by the search alone."""
    winner: int | None
    """The finalist with the best mean; None while the repeats have not ended, where none is compared, and where seeds
    make no difference."""
    seed_spread: float | None
    """Standard deviation of the expected score of a trained model between seeds, pooled over the finalists."""
    degrees: int | None
    """Degrees of freedom of `seed_spread`."""
    base_value: float | None
    """The base model's score, which has no seeds; None where it has none."""
    gpu_hours: float
    """Used by the repeats, up to now."""

    @property
    def finished(self) -> int:
        """Repeats that have finished."""
        return sum(len(one.values) for one in self.trials)

    @property
    def total(self) -> int:
        """All repeats of the finalists."""
        return sum(len(one.repeats) for one in self.trials)

    @property
    def chosen(self) -> RepeatedTrial | None:
        """The winner; None while nothing is decided."""
        return next((one for one in self.trials if one.number == self.winner), None)


def repeats_result(
    folder: StudyFolder,
    config: StudyConfig,
    ranked_by: Objective,
    ordered: Sequence[TrialRow],
    base: TrialRow | None,
    *,
    raced: int = 0,
) -> RepeatsResult | None:
    """The repeats of a study's finalists; None without `search.repeats`.

    `ordered`: the trials of the search that can be the best one, with what they are ranked by as their value, best
    first. `base`: the baseline in the same form. `raced`: as in `best_answer`. Reads the items of the search again
    only where repeats have ended.
    """
    if not config.search.repeats:
        return None
    found = derived_trials(folder.repeats.path)
    search_best = ordered[0].number if ordered else None
    if found is None:
        return RepeatsResult(
            folder=folder.repeats.path,
            state="not started",
            stop=None,
            seeds=config.search.repeats,
            unchanged=False,
            label=ranked_by.label,
            trials=(),
            search_best=search_best,
            winner=None,
            seed_spread=None,
            degrees=None,
            base_value=None,
            gpu_hours=0.0,
        )
    from hpotune.schedule.stopping_criterion import stop_reason

    now = datetime.now()
    status = status_of_trials(found, now=now)
    stop = stop_reason(found.config, found.rows, now=now)
    values = {
        row.number: row for row in by_label(found.config.score.objective, ranked_by.label, _done(found))
    }
    runs = _runs(found, values)
    known = {row.number: row for row in ordered}
    finalists = [number for number in runs if number in known]
    compared = [number for number in finalists if len(_rows(runs[number], values)) >= FEWEST_SEEDS]
    answer = None
    unchanged = bool(compared) and all(
        one.value in (None, known[number].values[0]) for number in compared for one in runs[number]
    )
    computable = all(abs(one.value or 0.0) < LARGEST for number in compared for one in runs[number])
    if status.state != "running" and compared and computable and not unchanged:
        rows = {number: _rows(runs[number], values) for number in compared}
        answer = _answer(
            folder, found.folder, ranked_by, ordered, base, rows, finalists=finalists, raced=raced
        )
    trials = [_trial(known[number], runs[number], answer) for number in finalists]
    return RepeatsResult(
        folder=found.folder.path,
        state=status.state,
        stop=stop.text if stop is not None and status.state == "failed" else None,
        seeds=config.search.repeats,
        unchanged=unchanged,
        label=ranked_by.label,
        trials=tuple(trials),
        search_best=search_best,
        winner=answer.numbers[answer.found.winner] if answer else None,
        seed_spread=answer.found.spread.stderr if answer else None,
        degrees=answer.found.spread.degrees if answer else None,
        base_value=base.values[0] if base is not None else None,
        gpu_hours=status.gpu_hours,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What the statistics say of the finalists that are compared."""

    numbers: Sequence[int]
    found: RepeatedFinalists
    sign: float
    items_known: bool


def _done(found: DerivedTrials) -> list[TrialRow]:
    return [row for row in found.rows if row.kind == "trial" and row.state == "finished"]


def _runs(found: DerivedTrials, values: Mapping[int, TrialRow]) -> dict[int, list[Repeat]]:
    """The repeats by the study's trial, in the order of the list."""
    runs: dict[int, list[Repeat]] = {}
    for point in found.listed.points:
        runs.setdefault(point.trial, []).append(_repeat(point, found.row_of(point), values))
    return runs


def _repeat(point: DerivedPoint, row: TrialRow | None, values: Mapping[int, TrialRow]) -> Repeat:
    if row is None:
        return Repeat(number=None, seed=point.seed, state="waiting", value=None)
    value = values[row.number].values[0] if row.number in values else None
    state = "waiting" if row.state == "stopped" else row.state
    return Repeat(number=row.number, seed=point.seed, state=state, value=value)


def _rows(repeats: Sequence[Repeat], values: Mapping[int, TrialRow]) -> list[TrialRow]:
    """The finished trials of one finalist, with what trials are ranked by as their value."""
    return [values[one.number] for one in repeats if one.number is not None and one.value is not None]


def _answer(
    folder: StudyFolder,
    repeated: StudyFolder,
    ranked_by: Objective,
    ordered: Sequence[TrialRow],
    base: TrialRow | None,
    rows: Mapping[int, Sequence[TrialRow]],
    *,
    finalists: Sequence[int],
    raced: int,
) -> _Answer:
    from hpotune.reporting.derived.repeated_items import repeated_settings
    from hpotune.reporting.score_items import ItemReader
    from hpotune.statistics.repeated_finalists import repeated_finalists

    read_search, read_repeats = ItemReader(folder, ranked_by), ItemReader(repeated, ranked_by)
    settings, choice, items_known = repeated_settings(
        read_search, read_repeats, ordered, base, rows, finalists=finalists, raced=raced
    )
    sign = 1.0 if ranked_by.sense == "maximize" else -1.0
    found = repeated_finalists(settings, choice)
    return _Answer(numbers=list(rows), found=found, sign=sign, items_known=items_known)


def _trial(row: TrialRow, repeats: Sequence[Repeat], answer: _Answer | None) -> RepeatedTrial:
    values = [one.value for one in repeats if one.value is not None]
    compared = answer is not None and row.number in answer.numbers
    position = answer.numbers.index(row.number) if answer is not None and compared else 0
    one = answer.found.scores[position] if answer is not None and compared else None
    return RepeatedTrial(
        number=row.number,
        search_value=row.values[0],
        repeats=tuple(repeats),
        mean=sum(values) / len(values) if values else None,
        error=_error(one.error, items_known=answer.items_known) if answer and one else None,
        expected=_expected(one, answer.sign) if answer and one else None,
        gain=_gain(one) if one else None,
        gain_stderr=one.gain_error.stderr * one.gain_error.widen() if one and one.gain_error else None,
        behind=_behind(answer, position) if answer and one else None,
        may_be_best=answer is not None and compared and position in answer.found.may_be_best,
    )


def _error(error: CrossedError, *, items_known: bool) -> ScoreError:
    return ScoreError(
        stderr=error.stderr,
        items=error.items**0.5 if items_known else None,
        seeds=error.seeds**0.5,
        degrees=error.degrees if error.degrees < float("inf") else None,
    )


def _expected(one: RepeatedScore, sign: float) -> CorrectedScore:
    low, high = sorted((sign * one.score.low, sign * one.score.high))
    return CorrectedScore(value=sign * one.score.value, low=low, high=high)


def _gain(one: RepeatedScore) -> CorrectedGain | None:
    gain = one.gain
    if gain is None:
        return None
    return CorrectedGain(value=gain.value, low=gain.low, high=gain.high, at_least=gain.at_least)


def _behind(answer: _Answer, position: int) -> Difference | None:
    if position == answer.found.winner:
        return None
    one = answer.found.differences[position]
    reach = max(one.high - one.observed, one.observed - one.low)
    return Difference(value=one.observed, stderr=reach / Z_95, paired=answer.items_known)
