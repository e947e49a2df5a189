"""Hints on a student's study: what is good, what is missing, and the next step. Reads a study, changes nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from shlex import quote
from typing import TYPE_CHECKING, Literal

from hpotune.config.load import Study
from hpotune.config.space.ranges import Range
from hpotune.lab.student_study import ReadStudy
from hpotune.records.trial import Span, TrialRow
from hpotune.reporting.advice import failure_advice, stop_advice
from hpotune.reporting.best_table import base_model_comparison
from hpotune.reporting.format import counts, length, number, share_text
from hpotune.reporting.gantt import kind as span_kind
from hpotune.reporting.gantt import read_spans
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.openings import read_openings

if TYPE_CHECKING:
    from hpotune.reporting.views.best import BestResult

Level = Literal["good", "hint", "problem"]
HintKind = Literal["run", "scale", "trials", "baseline", "ties", "end", "overhead", "failures", "sealed test"]
CHANCE = 0.95
"""The probability with which a claim about random points holds."""
WIDE = 50
"""High / low of a range above which equal steps on a plain scale leave the small values untried."""
_BY_FACTORS = re.compile(
    r"(^|[._])(lr|learning_rate|rate|weight_decay|wd|decay|eps|epsilon|alpha|lambda|lam|c|gamma)$"
)
"""Names of values that act by their factor."""
USED_WELL = 0.5
"""Share of the workers' time in which trials ran, below which job sizes are worth a look."""
SHORT_S = 10
"""Seconds of a trial below which starting it costs as much as running it."""
NEAR_END = 0.05
"""Distance from an end of a range, as a share of it, that counts as at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """One thing about a study."""

    kind: HintKind
    level: Level
    """good: nothing to do. hint: could be better. problem: the result cannot be used as it is."""
    text: str
    next_step: str
    """What to do; empty where nothing is to be done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Looked:
    """A study as the checks look at it."""

    folder: StudyFolder
    study: Study
    rows: Sequence[TrialRow]
    best: BestResult
    spans: Sequence[Span]
    now: datetime

    @property
    def finished(self) -> list[TrialRow]:
        """Trials that ended with a score, without the baseline."""
        return [row for row in self.rows if row.decided and row.kind == "trial"]

    @property
    def name(self) -> str:
        """The study's folder, as a word of a command."""
        return quote(str(self.folder.path))


def study_hints(found: ReadStudy, *, now: datetime, best: BestResult | None = None) -> tuple[Hint, ...]:
    """The hints on a study that could be read; on one that could not, why. `best`: its result, where it is known.

    Raises: HpotuneError where files beside the trials are damaged.
    """
    if found.study is None or found.folder is None:
        return (Hint(kind="run", level="problem", text=found.problem, next_step=_without_study(found)),)
    from hpotune.reporting.views.best import best_result

    looked = _Looked(
        folder=found.folder,
        study=found.study,
        rows=found.rows,
        best=best or best_result(found.folder, found.study.config, found.rows),
        spans=read_spans(found.folder),
        now=now,
    )
    return tuple(hint for check in CHECKS for hint in check(looked))


def _without_study(found: ReadStudy) -> str:
    """What to do where there is no study that can be read."""
    if not found.path.exists():
        return "give the student's folder, or the folder or file of a study"
    if (found.path / "resolved.yaml").exists():
        return f"hpotune status {quote(str(found.path))} says more; restore what is damaged, or run it again"
    return "hpotune run STUDY.yaml, or hpotune submit STUDY.yaml, in that folder"


def _run(looked: _Looked) -> Iterator[Hint]:
    budget, done = looked.study.config.budget.trials, sum(row.decided for row in looked.rows)
    running = sum(row.state == "running" for row in looked.rows)
    if done == 0:
        text = f"no trial has finished ({running} running)" if running else "no trial has finished"
        step = (
            f"hpotune status {looked.name} shows what it waits for"
            if running
            else f"hpotune resume {looked.name}"
        )
        yield Hint(kind="run", level="hint" if running else "problem", text=text, next_step=step)
        return
    stop = stop_reason(looked.study.config, looked.rows, now=looked.now)
    if done >= budget or (stop is not None and stop.kind in ("goal_reached", "plateau")):
        yield Hint(kind="run", level="good", text=f"{done} of {budget} trials have finished", next_step="")
        return
    step = stop_advice(stop, looked.folder.path) if stop is not None else f"hpotune resume {looked.name}"
    more = f": {stop.text}" if stop is not None else f", {running} running" if running else ""
    yield Hint(
        kind="run", level="hint", text=f"{done} of {budget} trials have finished{more}", next_step=step
    )


def _scale(looked: _Looked) -> Iterator[Hint]:
    plain, logged = [], []
    for one in looked.study.space.searched:
        if one.kind in ("float", "int") and one.log:
            logged.append(one.name)
        elif needs_log(one):
            plain.append(one)
    for one in plain:
        wide = one.high / one.low if one.low > 0 else float("inf")
        small = one.low + (one.high - one.low) / 10
        text = (
            f"{one.name} is searched on a plain scale from {number(one.low)} to {number(one.high)}: nine of ten values "
            f"lie above {number(small)}"
        )
        low = one.low if wide < float("inf") else one.high / 1000
        ends = f"[{number(low)}, {number(one.high)}]"
        step = f"write {{{one.kind}: {ends}, log: true}} for it in a new study"
        yield Hint(kind="scale", level="hint", text=text, next_step=step)
    if logged and not plain:
        text = f"searched on a log scale, as values that act by factors should be: {', '.join(logged)}"
        yield Hint(kind="scale", level="good", text=text, next_step="")


def needs_log(one: Range) -> bool:
    """Whether a range should be on a log scale: it spans a wide ratio, or its name says that it acts by factors."""
    if one.kind not in ("float", "int") or one.log or one.measure is not None or one.low < 0:
        return False
    if one.low == 0:
        return one.kind == "float" and bool(_BY_FACTORS.search(one.name)) and one.high <= 1
    ratio = one.high / one.low
    return ratio >= WIDE or (ratio >= 10 and bool(_BY_FACTORS.search(one.name)))


def top_share(trials: int) -> float:
    """The best of so many random points lies in this best share of the space, with a probability of CHANCE.

    Source: 1 - (1 - p)^n = 0.95; Bergstra and Bengio 2012, section 2: 60 points for the best 5 %.
    """
    return float(1 - (1 - CHANCE) ** (1 / trials)) if trials else 1.0


def _trials(looked: _Looked) -> Iterator[Hint]:
    done, names = len(looked.finished), [one.name for one in looked.study.space.searched]
    if not done or not names:
        return
    share = top_share(done)
    text = (
        f"{_several(done, 'trial')} over {_several(len(names), 'parameter')}: the best of {done} random points is, "
        f"with 95 % probability, among the best {share_text(share)} of the space"
    )
    if share > 0.1:
        step = f"29 trials give the best 10 %, 59 the best 5 %: hpotune extend {looked.name} --trials +{29 - done}"
        yield Hint(kind="trials", level="hint", text=text, next_step=step)
    else:
        yield Hint(kind="trials", level="good", text=text, next_step="")


def _baseline(looked: _Looked) -> Iterator[Hint]:
    best = looked.best
    if best.best is None or not best.tuned_model:
        return
    corrected = best.corrected_gain
    text = f"the best trial is {base_model_comparison(best)}"
    if best.baseline is None:
        yield Hint(
            kind="baseline",
            level="problem",
            text="the base model was not scored, so nobody knows whether the training helped",
            next_step="leave checks.baseline at true in a new study",
        )
    elif corrected is not None and corrected.significant:
        yield Hint(kind="baseline", level="good", text=text, next_step="")
    elif corrected is None:
        step = "use a metric with a standard error, or search.repeats: 3; until then claim no improvement"
        yield Hint(kind="baseline", level="hint", text=text, next_step=step)
    else:
        step = "score more items (score.objective.limit), or widen the space; claim no improvement"
        yield Hint(kind="baseline", level="problem", text=text, next_step=step)


def _ties(looked: _Looked) -> Iterator[Hint]:
    best = looked.best
    if best.best is None or len(looked.finished) < 2:
        return
    if best.expected is None:
        metric = best.ranked_by.label
        how = (
            f"return {metric}_stderr beside {metric}"
            if not best.tuned_model
            else "use a metric with a standard error"
        )
        text = "the score has no standard error, so it is not known which trials are as good as the best one"
        step = f"{how}, or search.repeats: 3 trains the best ones again with new seeds"
        yield Hint(kind="ties", level="hint", text=text, next_step=step)
    elif best.tied:
        tied = ", ".join(str(one.number) for one in best.tied[:5]) + (
            " and more" if len(best.tied) > 5 else ""
        )
        text = f"trial {best.best.number} is the best, but not significantly better than trial {tied}"
        step = "say so in the report; search.repeats: 3 separates them, or choose the cheapest"
        yield Hint(kind="ties", level="hint", text=text, next_step=step)
    else:
        text = f"trial {best.best.number} is better than all others by more than the error"
        yield Hint(kind="ties", level="good", text=text, next_step="")


def _ends(looked: _Looked) -> Iterator[Hint]:
    if looked.best.best is None or len(looked.finished) < 8:
        return
    for one in looked.study.space.searched:
        value = looked.best.best.params.get(one.name)
        if one.kind != "float" or not isinstance(value, (int, float)):
            continue
        at = _position(one, float(value))
        if at < NEAR_END or at > 1 - NEAR_END:
            which, end = ("lower", one.low) if at < 0.5 else ("upper", one.high)
            text = f"the best trial has {one.name} = {number(value)}, at the {which} end of its range ({number(end)})"
            step = "widen the range there in a new study, unless the end is a limit of the thing itself"
            yield Hint(kind="end", level="hint", text=text, next_step=step)


def _position(one: Range, value: float) -> float:
    """Where a value lies in its range: 0 the low end, 1 the high one, on the range's own scale."""
    import math

    low, high, at = (math.log(x) if one.log else x for x in (one.low, one.high, max(value, one.low)))
    return (at - low) / (high - low)


def _overhead(looked: _Looked) -> Iterator[Hint]:
    rows = [row for row in looked.rows if row.attempts]
    if not rows:
        return
    attempts = [one for row in rows for one in row.attempts]
    own = [span for span in looked.spans if span_kind(span) != "queue"]
    start = min([one.start for one in attempts] + [span.start for span in own])
    end = max(one.end for one in attempts)
    workers = min(looked.study.config.budget.parallel, len(attempts))
    held = (end - start) * workers
    loading = sum(span.end - span.start for span in own if span_kind(span) == "load")
    used = max(0.0, sum(one.seconds for one in attempts) - loading)
    if held <= 0:
        return
    share = min(1.0, used / held)
    each = used / len(attempts)
    text = (
        f"trials ran in {share_text(share)} of the time of {_several(workers, 'worker')}, {length(each)} each; "
        "the rest was queue, starts, loading and waiting"
    )
    if share >= USED_WELL:
        yield Hint(kind="overhead", level="good", text=text, next_step="")
        return
    step = f"{_better_use(looked, each_s=each)}; hpotune plan {looked.name} compares job sizes"
    yield Hint(kind="overhead", level="hint", text=text, next_step=step)


def _better_use(looked: _Looked, *, each_s: float) -> str:
    """How less of the workers' time would be lost."""
    config = looked.study.config
    if config.execution.trials_per_job == 1:
        return "let a job run several trials: execution: {trials_per_job: auto}"
    if config.model is not None:
        return "train or score more in each trial, or ask for fewer workers at once (budget.parallel)"
    if each_s < SHORT_S:
        return "evaluate several points in one call, or run workers in one allocation: execution: {place: hyperqueue}"
    return "ask for fewer workers at once (budget.parallel)"


def _failures(looked: _Looked) -> Iterator[Hint]:
    failed = [
        row for row in looked.rows if row.state == "failed" and row.failure is not None and not row.forgiven
    ]
    if not failed:
        if looked.finished:
            yield Hint(kind="failures", level="good", text="no trial has failed", next_step="")
        return
    causes = Counter(row.failure.cause for row in failed if row.failure)
    cause, _ = causes.most_common(1)[0]
    first = next(row for row in failed if row.failure and row.failure.cause == cause)
    message = " ".join(first.failure.message.split())[:160] if first.failure else ""
    text = f"{_several(len(failed), 'trial')} failed: {counts(causes)}; trial {first.number}: {message}"
    advice = failure_advice(looked.study.config, first, first.attempts, cause)
    step = f"{advice} (hpotune why {looked.name} {first.number})"
    level: Level = "problem" if len(failed) > len(looked.finished) else "hint"
    yield Hint(kind="failures", level=level, text=text, next_step=step)


def _sealed_test(looked: _Looked) -> Iterator[Hint]:
    if not looked.study.config.score.test:
        return
    openings = read_openings(looked.folder)
    if not openings:
        text = "the sealed test is closed, as it should be during the search"
        step = f"hpotune test {looked.name}, once, when you have chosen" if looked.finished else ""
        yield Hint(kind="sealed test", level="good", text=text, next_step=step)
        return
    first = openings[0].opened
    after = [row for row in looked.finished if row.attempts and row.attempts[0].start > first]
    if after:
        text = f"{len(after)} trials started after the sealed test was opened: it is no longer a test of the choice"
        step = "report it as validation, and take another benchmark as the test in a new study"
        yield Hint(kind="sealed test", level="problem", text=text, next_step=step)
    elif len(openings) > 1:
        text = f"the sealed test was opened {len(openings)} times"
        yield Hint(
            kind="sealed test",
            level="hint",
            text=text,
            next_step="say so in the report, and use the first opening",
        )
    else:
        text = "the sealed test was opened once, after the search"
        yield Hint(kind="sealed test", level="good", text=text, next_step="")


def _several(count: int, what: str) -> str:
    """`1 trial`, `3 trials`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


CHECKS: tuple[Callable[[_Looked], Iterator[Hint]], ...] = (
    _run,
    _failures,
    _scale,
    _trials,
    _baseline,
    _ties,
    _ends,
    _overhead,
    _sealed_test,
)
