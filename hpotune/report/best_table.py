"""The best trial for the terminal: its point, how it compares with the base model, other trials as good."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from hpotune.report.format import STDERR_NOTE, interval, number, score
from hpotune.report.paired_difference import Difference
from hpotune.report.views.best import BestResult
from hpotune.report.views.trial_view import TrialView

_MOST_LISTED = 5
"""Trials that one line lists."""


def best_table(result: BestResult) -> RenderableType:
    """The best trial with its scores and point, the comparisons, and where its files are."""
    best = result.best
    if best is None and result.left_out:
        none = Text(f"{result.study}: no trial satisfies score.constraints yet")
        return Group(none, *map(Text, _limits(result)))
    if best is None:
        return Text(f"{result.study}: no trial has finished yet")
    lines = [Text(_headline(result, best), style="bold"), *map(Text, _point(best))]
    lines += map(Text, _expected(result))
    if result.tuned_model:
        lines.append(Text(base_model_comparison(result)))
    lines += map(Text, _tied(result))
    if result.front:
        first = result.objectives[0].label
        numbers = ", ".join(str(one.number) for one in result.front)
        lines.append(Text(f"Pareto front, best {first} first: trials {numbers}"))
    lines += map(Text, _limits(result))
    lines.append(Text(f"files: {result.adapter or result.folder}"))
    return Group(*lines)


def _headline(result: BestResult, best: TrialView) -> str:
    count = result.finished + result.stopped
    pruned = f" ({result.stopped} pruned)" if result.stopped else ""
    by = f" by {result.objectives[0].label}" if result.front else ""
    return f"best of {count} trials{pruned}{by}: trial {best.number}"


def _point(best: TrialView) -> list[str]:
    lines: list[str] = []
    for label, value in best.values.items():
        stderr = best.stderrs.get(label)
        note = f"  ({STDERR_NOTE})" if stderr is not None and not lines else ""
        lines.append(f"  {label:<28} {score(value, stderr)}{note}")
    return lines + [f"  {name:<28} {number(value)}" for name, value in best.params.items()]


def base_model_comparison(result: BestResult) -> str:
    """Whether the best trial is better than the base model, allowing for the choice of the best: one sentence."""
    gain, baseline, corrected = result.gain, result.baseline, result.corrected_gain
    if gain is None or baseline is None:
        return "the base model was not scored: no comparison"
    label = result.objectives[0].label
    base = f"the base model ({score(baseline.values.get(label), baseline.stderrs.get(label))})"
    if corrected is None:
        better = "better" if gain.value > 0 else "worse"
        by = number(abs(gain.value))
        return f"{better} than {base} by {by}; significance unknown: this metric has no standard error"
    value, low, high = interval(corrected.value, corrected.low, corrected.high)
    how = f"95 % confidence interval {low} to {high}{', paired' if gain.paired else ''}"
    if corrected.significant:
        return f"better than {base} by {value} ({how})"
    return f"not significantly better than {base}: difference {value} ({how})"


def _expected(result: BestResult) -> list[str]:
    """The best trial's score on further items, corrected for the choice; nothing where one trial alone was tried."""
    expected, count = result.expected, result.finished + result.stopped - (result.baseline is not None)
    if expected is None:
        return []
    value, low, high = interval(expected.value, expected.low, expected.high)
    corrected = f", corrected for the choice of the best of {count} trials" if count > 1 else ""
    return [f"expected on further items: {value} (95 % confidence interval {low} to {high}{corrected})"]


def _tied(result: BestResult) -> list[str]:
    if not result.tied:
        return []
    shown = [
        f"trial {one.number} (difference {_value(one.difference)}, {_interval(one.difference)})"
        for one in result.tied[:_MOST_LISTED]
    ]
    more = len(result.tied) - len(shown)
    rest = [f"{more} more (`hpotune best --json` lists them)"] if more else []
    lines = [f"not significantly different from: {'; '.join(shown + rest)}"]
    cheapest = result.recommended
    if cheapest is not None and result.best is not None and cheapest.number != result.best.number:
        costs = cheapest.costs
        lines.append(
            f"cheapest of these: trial {cheapest.number} ({costs['trainable_parameters']:,.0f} trained parameters, "
            f"{number(costs['train_seconds'])} s of training, {number(costs['peak_memory_gb'])} GB)"
        )
    return lines


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
    """Trials that violate limits of `score.constraints`, and limits that could not be checked."""
    lines = []
    if result.left_out:
        number, broken = next(iter(result.left_out.items()))
        count = len(result.left_out)
        one = f"trial {number} ({', '.join(broken)})"
        lines.append(
            f"excluded by score.constraints: {one}"
            if count == 1
            else f"excluded by score.constraints: {count} trials, e.g. {one}"
        )
    for name, numbers in result.unmeasured.items():
        trials = ", ".join(map(str, numbers[:_MOST_LISTED]))
        more = ", …" if len(numbers) > _MOST_LISTED else ""
        lines.append(f"warning: trial {trials}{more} did not measure {name}: its limit was not checked there")
    return lines
