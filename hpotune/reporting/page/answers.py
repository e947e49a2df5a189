"""The five questions that a study answers, in words: which setting, how much better, how sure, at what cost, and
whether it holds on the sealed test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpotune.reporting.best_table import expected_where
from hpotune.reporting.derived.repeats_table import error_sentences, progress_line
from hpotune.reporting.format import interval, length, number, score, share_text, short
from hpotune.reporting.page.charts.figure import sentence
from hpotune.reporting.page.text_table import listed, signed
from hpotune.reporting.views.sealed_test import SealedDifference, SealedTestResult
from hpotune.reporting.views.study_report import StudyReport
from hpotune.reporting.views.trial_view import scored

_MOST_TASKS = 4
"""Sealed tasks that the first screen names."""
Tone = Literal["good", "open", "bad", "none"]
"""good: an answer that holds. open: not decided or not known yet. bad: an answer that warns. none: a plain fact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to one question."""

    question: str
    headline: str
    details: tuple[str, ...]
    tone: Tone
    settings: tuple[tuple[str, str], ...] = ()
    """Name and value of each hyperparameter."""


def answers(report: StudyReport) -> tuple[Answer, ...]:
    """The five answers, in their order."""
    return (_setting(report), _gain(report), _certainty(report), _cost(report), _sealed(report))


def _setting(report: StudyReport) -> Answer:
    best, question = report.best.best, "Which setting is best?"
    if best is None:
        return Answer(question=question, headline=_no_best(report), details=(), tone="open")
    details = []
    if report.best.front:
        numbers = listed([one.number for one in report.best.front])
        details.append(f"Pareto front of {len(report.best.objectives)} objectives: {numbers}.")
    chosen = report.best.recommended
    if chosen is not None and chosen.number != best.number:
        details.append(f"Trial {chosen.number} may be as good, and is the cheapest of those that may be.")
    if report.best.rule is not None:
        details.append(f"By the rule: {report.best.rule.text}.")
    if raced := report.status.trials.raced:
        ended = "trial was" if raced == 1 else "trials were"
        details.append(
            f"{raced} {ended} not scored to the end, being surely worse than the best one so far (score.race): "
            "estimates, which are left out of comparisons."
        )
    by = f" by {report.best.ranked_by.label}" if report.best.front or report.best.rule else ""
    return Answer(
        question=question,
        headline=f"Trial {best.number}{by}",
        details=tuple(details),
        tone="none",
        settings=tuple((name, number(value)) for name, value in best.params.items()),
    )


def _no_best(report: StudyReport) -> str:
    if report.best.left_out or report.best.excluded_by_rule:
        return "No trial satisfies the limits" if report.best.left_out else "No trial satisfies the rule"
    if report.status.failures and not report.best.finished:
        return "Every trial so far has failed"
    return "No trial has finished yet"


def _gain(report: StudyReport) -> Answer:
    result, question = report.best, "How much better than the base model?"
    if result.best is None:
        return Answer(question=question, headline="Not known yet", details=(), tone="open")
    label = result.ranked_by.label
    measured = f"{label}: {_measured(report)}"
    if not result.tuned_model:
        detail = f"The study has its own {report.setup.kind}, so there is no base model to compare with."
        return Answer(
            question="How good is it?", headline=measured, details=(_expected(report), detail), tone="none"
        )
    if result.baseline is None or result.gain is None:
        detail = (
            "The base model was not scored (checks.baseline), so no gain is known."
            if result.baseline is None
            else f"{label} is a cost, or the base model has none."
        )
        return Answer(question=question, headline="Not known", details=(measured, detail), tone="open")
    base = f"Base model {score(*scored(result.baseline, label))}"
    corrected = result.corrected_gain
    if corrected is None:
        return Answer(
            question=question,
            headline=f"{signed(result.gain.value)} {label}",
            details=(f"{base}, best trial {measured}.",),
            tone="open",
        )
    value, low, high = interval(corrected.value, corrected.low, corrected.high)
    return Answer(
        question=question,
        headline=f"{signed(value)} {label}",
        details=(
            f"95 % confidence interval {signed(low)} to {signed(high)}, corrected for the choice of the best trial.",
            f"{base}; the best trial measured {_measured(report)}.",
        ),
        tone="good" if corrected.significant else "open",
    )


def _measured(report: StudyReport) -> str:
    """The best trial's score: with new seeds where they decided, else that of the search."""
    result = report.best
    again = result.deciding_repeats.chosen if result.deciding_repeats else None
    if again is None or again.mean is None or again.error is None:
        return score(*scored(result.best, result.ranked_by.label)) if result.best else ""
    return f"{score(again.mean, again.error.stderr)} (mean of {len(again.values)} new seeds)"


def _expected(report: StudyReport) -> str:
    found = report.best.expected
    if found is None:
        return ""
    value, low, high = interval(found.value, found.low, found.high)
    return sentence([f"{expected_where(report.best)}: {value} (95 % confidence interval {low} to {high})"])


def repeats_sentences(report: StudyReport) -> tuple[str, ...]:
    """What the repeats say of the errors, and how far they are; empty without repeats."""
    result = report.best.repeats
    if result is None:
        return ()
    texts = [*error_sentences(result), progress_line(result).replace("`", "")]
    return tuple(sentence([text]) for text in texts)


def _certainty(report: StudyReport) -> Answer:
    result, question = report.best, "How sure is that?"
    if result.best is None:
        return Answer(question=question, headline="Not known yet", details=(), tone="open")
    again = result.deciding_repeats
    count = result.candidates if again is None else len(again.trials)
    what = "trials" if again is None else "finalists"
    others = [one.number for one in result.tied]
    equal = (
        f"{len(others)} other{'s' if len(others) > 1 else ''} of the {count} {what} may be as good: {listed(others)}."
        if others
        else f"No other of the {count} {what} may be the best one." if result.expected is not None and count > 1 else ""
    )  # fmt: skip
    expected = _expected(report) if result.tuned_model else ""
    if result.expected is None:
        why = (
            "The trials of a Pareto front have no single winner."
            if result.front
            else "The scores have no standard error, so no difference can be called significant."
        )
        return Answer(question=question, headline="Not known", details=(why,), tone="open")
    if result.corrected_gain is None:
        headline = f"{len(others)} other trials may be as good" if others else "Ahead of all other trials"
        return Answer(
            question=question,
            headline=headline,
            details=_texts(equal, expected, *repeats_sentences(report)[:1]),
            tone="open" if others else "good",
        )
    better = result.corrected_gain.significant
    headline = (
        "Significantly better than the base model"
        if better
        else "Not significantly better than the base model"
    )
    return Answer(
        question=question,
        headline=headline,
        details=_texts(equal, expected, *repeats_sentences(report)[:1]),
        tone="good" if better else "bad",
    )


def _texts(*texts: str) -> tuple[str, ...]:
    return tuple(text for text in texts if text)


def _cost(report: StudyReport) -> Answer:
    cost, question = report.cost, "At what cost?"
    trials = report.status.trials
    done = trials.finished + trials.stopped
    counted = f"{done} of {trials.budget} trials" + (f", {trials.failed} failed" if trials.failed else "")
    if not cost.total:
        return Answer(
            question=question, headline="Nothing has run yet", details=(f"{counted}.",), tone="none"
        )
    share = cost.lost / cost.total
    wall = f" in {length(cost.wall_s)}" if cost.wall_s else ""
    gone = share_text(share)
    lost = f"{gone[0].upper()}{gone[1:]} of it gave no score." if cost.lost else "None of it was lost."
    each = f"{short(cost.total / done)} {cost.unit} a trial." if done else ""
    return Answer(
        question=question,
        headline=f"{short(cost.total)} {cost.unit}",
        details=_texts(f"{counted}{wall}.", lost, each),
        tone="bad" if share > 0.25 else "none",
    )


def _sealed(report: StudyReport) -> Answer:
    question = "Does it hold on the sealed test?"
    tasks, result = report.setup.sealed_tasks, report.sealed
    if result is None and not tasks:
        detail = (
            "Tasks under score.test would be scored once, for the finalists alone."
            if report.setup.kind in ("fine-tuning", "inference")
            else "A sealed test needs lm-eval tasks, and so a model."
        )
        return Answer(question=question, headline="The study has none", details=(detail,), tone="none")
    if result is None:
        detail = f"{', '.join(tasks)}: run `hpotune test` once the search has ended."
        return Answer(question=question, headline="Not opened yet", details=(detail,), tone="open")
    if result.state != "done":
        words = "is being scored" if result.state == "running" else "could not be scored in full"
        return Answer(
            question=question, headline=f"Opened; it {words}", details=_openings(result), tone="open"
        )
    return _sealed_result(report, result, question)


def _sealed_result(report: StudyReport, result: SealedTestResult, question: str) -> Answer:
    best = report.best.best
    numbers = [one.number for one in result.differences]
    chosen = best.number if best is not None and best.number in numbers else next(iter(numbers), None)
    found = [one for one in result.differences if one.number == chosen]
    if not found:
        return Answer(
            question=question, headline="Scored, without a comparison", details=_openings(result), tone="open"
        )
    better = sum(one.significant and one.value > 0 for one in found)
    worse = sum(one.significant and one.value < 0 for one in found)
    of = f"{len(found)} task{'s' if len(found) > 1 else ''}"
    headline, tone = _verdict(better, worse, of)
    lines = [difference_text(one) for one in found[:_MOST_TASKS]]
    if len(found) > _MOST_TASKS:
        lines.append(f"and {len(found) - _MOST_TASKS} more tasks below")
    head = f"Trial {chosen} minus the base model, with 95 % confidence intervals:"
    return Answer(question=question, headline=headline, details=(head, *lines, *_openings(result)), tone=tone)


def _verdict(better: int, worse: int, of: str) -> tuple[str, Tone]:
    if worse:
        return f"No: significantly worse on {worse} of {of}", "bad"
    if better:
        return f"Yes: significantly better on {better} of {of}", "good"
    return f"Not shown: no significant difference on {of}", "open"


def difference_text(one: SealedDifference) -> str:
    """`mmlu/acc +0.012 (−0.010 to +0.034)`: the difference and its 95 % interval."""
    name = one.label
    if one.low is None or one.high is None:
        return f"{name} {signed(one.value)} (no standard error)"
    value, low, high = interval(one.value, one.low, one.high)
    return f"{name} {signed(value)} ({signed(low)} to {signed(high)})"


def _openings(result: SealedTestResult) -> tuple[str, ...]:
    """What a reader must know of an opening: more than one, or trials that were finished after it."""
    lines = []
    if len(result.openings) > 1:
        lines.append(f"The test was opened {len(result.openings)} times; the numbers are those of the last.")
    if result.trials_after:
        lines.append(f"{result.trials_after} trials finished after the first opening.")
    return tuple(lines)


def subject(report: StudyReport) -> str:
    """What was tuned, and by which number trials are ranked, in a line."""
    setup, by = report.setup, report.best.ranked_by
    better = "higher" if by.direction == "maximize" else "lower"
    what = (
        f"Fine-tuning of {setup.subject} on {setup.data}" if setup.data else f"{setup.kind} {setup.subject}"
    )
    return f"{what}, ranked by {by.label} ({better} is better)"


def summary(report: StudyReport) -> str:
    """Where the study stands, in a line."""
    trials = report.status.trials
    done = trials.finished + trials.stopped
    stop = report.status.stop
    why = f": {stop.text}" if stop is not None and report.status.state == "stopped" else ""
    return f"{report.status.state}{why}, {done} of {trials.budget} trials"
