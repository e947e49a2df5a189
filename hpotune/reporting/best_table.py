"""The best trial for the terminal: its point, how it compares with the base model, other trials as good."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from hpotune.reporting.derived.repeats_table import error_sentences, progress_line, repeats_table, winner_note
from hpotune.reporting.format import STDERR_NOTE, interval, number, score
from hpotune.reporting.paired_difference import Difference
from hpotune.reporting.views.best import BestResult
from hpotune.reporting.views.pareto_front import FrontTrial
from hpotune.reporting.views.trial_view import TrialView, scored

_MOST_LISTED = 5
"""Trials that one line lists."""


def best_table(result: BestResult) -> RenderableType:
    """The best trial with its scores and point, the comparisons, and where its files are."""
    best = result.best
    if best is None and (result.left_out or result.excluded_by_rule):
        rule = "the rule" if result.excluded_by_rule else "score.constraints"
        none = Text(f"{result.study}: no trial satisfies {rule} yet")
        return Group(none, *map(Text, [*_rule(result), *_limits(result)]))
    if best is None:
        return Text(f"{result.study}: no trial has finished yet")
    lines: list[RenderableType] = [Text(_headline(result, best), style="bold")]
    lines += [*map(Text, [*_rule(result), *_point(result, best)])]
    lines += _repeats(result)
    lines += map(Text, _expected(result))
    if result.tuned_model:
        lines.append(Text(base_model_comparison(result)))
    lines += map(Text, _tied(result))
    lines += map(Text, _front(result))
    lines += map(Text, _limits(result))
    lines.append(Text(f"files: {result.adapter or result.folder}"))
    return Group(*lines)


def _headline(result: BestResult, best: TrialView) -> str:
    count = result.finished + result.stopped
    pruned = f" ({result.stopped} pruned)" if result.stopped else ""
    by = f" by {result.ranked_by.label}" if result.front or result.rule else ""
    note = winner_note(result.deciding_repeats) if result.deciding_repeats else ""
    return f"best of {count} trials{pruned}{by}: trial {best.number}{note}"


def _rule(result: BestResult) -> list[str]:
    """The rule that chose the best trial, and where it stands."""
    rule = result.rule
    if rule is None:
        return []
    source = "best, in the study file" if rule.stored else "--rule, for this output only"
    return [f"rule: {rule.text} ({source})"]


def _point(result: BestResult, best: TrialView) -> list[str]:
    lines: list[str] = []
    values: dict[str, float | None] = dict(best.values)
    label = result.ranked_by.label
    if label not in values:
        values[label], _ = scored(best, label)
    for label, value in values.items():
        _, stderr = scored(best, label)
        note = f"  ({STDERR_NOTE})" if stderr is not None and not lines else ""
        lines.append(f"  {label:<28} {score(value, stderr)}{note}")
    return lines + [f"  {name:<28} {number(value)}" for name, value in best.params.items()]


def base_model_comparison(result: BestResult) -> str:
    """Whether the best trial is better than the base model, allowing for the choice of the best: one sentence."""
    gain, baseline, corrected = result.gain, result.baseline, result.corrected_gain
    label = result.ranked_by.label
    if baseline is None:
        return "the base model was not scored: no comparison"
    if gain is None:
        return f"no comparison with the base model by {label}: it is a cost, or the base model has none"
    base = f"the base model ({score(*scored(baseline, label))})"
    if corrected is None:
        unknown = "significance unknown: this metric has no standard error"
        if gain.value == 0:
            return f"no difference to {base}; {unknown}"
        better = "better" if gain.value > 0 else "worse"
        return f"{better} than {base} by {number(abs(gain.value))}; {unknown}"
    value, low, high = interval(corrected.value, corrected.low, corrected.high)
    how = f"95 % confidence interval {low} to {high}{', paired' if gain.paired else ''}"
    if corrected.significant:
        return f"better than {base} by {value} ({how})"
    return f"not significantly better than {base}: difference {value} ({how})"


def _repeats(result: BestResult) -> list[RenderableType]:
    """The repeats of the finalists, and the sources of the error; nothing without `search.repeats`."""
    if result.repeats is None:
        return []
    lines: list[RenderableType] = [Text(text) for text in error_sentences(result.repeats)]
    lines.append(Text(progress_line(result.repeats)))
    if result.repeats.trials:
        lines.append(repeats_table(result.repeats))
    return lines


def _expected(result: BestResult) -> list[str]:
    """The best trial's score on further items, corrected for the choice; nothing where one trial alone was tried."""
    expected, count = result.expected, result.candidates
    if expected is None:
        return []
    value, low, high = interval(expected.value, expected.low, expected.high)
    corrected = f", corrected for the choice of the best of {count} trials" if count > 1 else ""
    return [f"{expected_where(result)}: {value} (95 % confidence interval {low} to {high}{corrected})"]


def expected_where(result: BestResult) -> str:
    """What the expected score is expected of: `expected on further items`, with repeats also of further seeds."""
    chosen = result.deciding_repeats.chosen if result.deciding_repeats else None
    if chosen is None or chosen.error is None:
        return "expected on further items"
    return f"expected with further seeds{' on further items' if chosen.error.items is not None else ', on these items'}"


def _tied(result: BestResult) -> list[str]:
    if not result.tied:
        return []
    shown = [
        f"trial {one.number} (difference {_value(one.difference)}, {_interval(one.difference)})"
        for one in result.tied[:_MOST_LISTED]
    ]
    more = len(result.tied) - len(shown)
    rest = [f"{more} more (`hpotune best --json` lists them)"] if more else []
    among = " (of the finalists)" if result.decided_by_repeats else ""
    lines = [f"not significantly different from{among}: {'; '.join(shown + rest)}"]
    cheapest = result.recommended
    if cheapest is not None and result.best is not None and cheapest.number != result.best.number:
        costs = cheapest.costs
        lines.append(
            f"cheapest of these: trial {cheapest.number} ({costs['trainable_parameters']:,.0f} trained parameters, "
            f"{number(costs['train_seconds'])} s of training, {number(costs['peak_memory_gb'])} GB)"
        )
    return lines


def _front(result: BestResult) -> list[str]:
    """The Pareto front with its uncertain trials marked, others that may be on it, and the hypervolume."""
    first, pareto = result.objectives[0].label, result.pareto
    if pareto is None:  # between two rungs no trial is compared by its items
        numbers = ", ".join(str(one.number) for one in result.front)
        return [f"Pareto front, best {first} first: trials {numbers}"] if result.front else []
    members = [
        str(one.number) if one.certain else f"{one.number} (uncertain: {_percent(one)})"
        for one in pareto.members
    ]
    lines = [f"Pareto front, best {first} first: trials {', '.join(members)}"]
    others = [f"trial {one.number} ({_percent(one)})" for one in pareto.candidates[:_MOST_LISTED]]
    more = len(pareto.candidates) - len(others)
    if others:
        rest = [f"{more} more (`hpotune best --json` lists them)"] if more else []
        lines.append(f"may be on the front too: {', '.join(others + rest)}")
    exact = [label for label, kind in pareto.errors.items() if kind == "none"]
    if exact and len(exact) < len(pareto.errors):
        lines.append(f"no standard error, counted as exact: {', '.join(exact)}")
    reference = ", ".join(f"{label} {number(value)}" for label, value in pareto.hypervolume.reference.items())
    steps = pareto.hypervolume.steps
    if steps:
        lines.append(f"hypervolume {number(steps[-1].value)} (reference point: {reference})")
    return lines


def _percent(trial: FrontTrial) -> str:
    return f"{100 * (trial.probability or 0.0):.0f} %"


def _value(difference: Difference) -> str:
    ends = difference.interval
    return number(difference.value) if ends is None else interval(difference.value, *ends)[0]


def _interval(difference: Difference) -> str:
    ends = difference.interval
    if ends is None:
        return "no standard error"
    _, low, high = interval(difference.value, *ends)
    return f"95 % confidence interval {low} to {high}{', paired' if difference.paired else ''}"


def _limits(result: BestResult) -> list[str]:
    """Trials that violate limits of `score.constraints` or the rule, and limits that could not be checked."""
    lines = _excluded("score.constraints", result.left_out) + _excluded("the rule", result.excluded_by_rule)
    for name, numbers in result.unmeasured.items():
        trials = ", ".join(map(str, numbers[:_MOST_LISTED]))
        more = ", …" if len(numbers) > _MOST_LISTED else ""
        lines.append(f"warning: trial {trials}{more} did not measure {name}: its limit was not checked there")
    return lines


def _excluded(by: str, trials: Mapping[int, tuple[str, ...]]) -> list[str]:
    """The trials that something leaves out, with the reasons of the first one."""
    if not trials:
        return []
    number, reasons = next(iter(trials.items()))
    count = f"{len(trials)} trials, e.g. " if len(trials) > 1 else ""
    return [f"excluded by {by}: {count}trial {number} ({', '.join(reasons)})"]
