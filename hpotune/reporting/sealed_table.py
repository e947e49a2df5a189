"""The sealed test for the terminal: the openings, the scores of base model and finalists, their differences."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.reporting.console import plain_table
from hpotune.reporting.format import STDERR_NOTE, interval, number, score
from hpotune.reporting.views.sealed_test import SealedDifference, SealedScore, SealedTestResult, SealedTrial
from hpotune.workspace.openings import openings_text

_MOST_SUBJECTS = 8
"""Single tasks of groups that the terminal shows; `--json` has all."""


def sealed_table(result: SealedTestResult) -> RenderableType:
    """Who opened it when, the scores of the base model and the finalists, and their differences to the base model."""
    lines: list[RenderableType] = [Text(headline(result), style="bold")]
    lines += [Text(line) for line in _openings(result)]
    scored = result.tested
    if any(one.scores for one in scored):
        lines += [Text(""), _scores(scored, result.tasks), Text(STDERR_NOTE, style="dim")]
    lines += [Text(line) for line in comparisons(result)]
    lines += [Text(line) for one in scored for line in _notes(one)]
    subjects = list(dict.fromkeys(score.task for one in scored for score in one.subjects))
    if subjects:
        lines += [Text(""), _subjects(scored, subjects[:_MOST_SUBJECTS])]
        if len(subjects) > _MOST_SUBJECTS:
            lines.append(
                Text(f"and {len(subjects) - _MOST_SUBJECTS} more tasks (`hpotune test --json` lists all)")
            )
    return Group(*lines)


def headline(result: SealedTestResult) -> str:
    """`small: sealed test of toy_exam, opening 1: 4 of 4 scored`."""
    every = result.tested
    done = sum(one.state == "scored" for one in every)
    count = f": {done} of {len(every)} scored" if every else ": not started"
    return f"{result.study}: sealed test of {', '.join(result.tasks)}, opening {len(result.openings)}{count}"


def _openings(result: SealedTestResult) -> list[str]:
    lines = [openings_text(result.openings)]
    last = result.openings[-1]
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.opened))
    commit = f", commit {last.commit[:12]}" if last.commit else ""
    trials = ", ".join(map(str, last.trials))
    lines.append(
        f"opened {at} by {last.user} on {last.host} (hpotune {last.version}{commit}) for trials {trials}"
    )
    if result.trials_after:
        lines.append(
            f"{result.trials_after} trials of the search finished after the first opening: they may have been chosen "
            "with its knowledge"
        )
    return lines


def _scores(trials: Sequence[SealedTrial], tasks: Sequence[str]) -> Table:
    labels = {task: _label(trials, task) for task in tasks}
    table = plain_table(("trial", *labels.values()))
    for one in trials:
        cells = [_cell(one.scores, task) or ("" if one.state == "scored" else one.state) for task in tasks]
        table.add_row(_name(one), *cells)
    return table


def _subjects(trials: Sequence[SealedTrial], subjects: Sequence[str]) -> Table:
    table = plain_table(("task", *(_name(one) for one in trials)))
    for task in subjects:
        table.add_row(task, *(_cell(one.subjects, task) for one in trials))
    return table


def _label(trials: Sequence[SealedTrial], task: str) -> str:
    found = [one.metric for trial in trials for one in trial.scores if one.task == task]
    return f"{task}/{found[0]}" if found else task


def _cell(scores: Sequence[SealedScore], task: str) -> str:
    found = next((one for one in scores if one.task == task), None)
    return score(found.value, found.stderr) if found is not None else ""


def _name(one: SealedTrial) -> str:
    return "base model" if one.number is None else str(one.number)


def comparisons(result: SealedTestResult) -> list[str]:
    """The difference of each finalist to the base model, a line each."""
    return [_comparison(one) for one in result.differences]


def _comparison(one: SealedDifference) -> str:
    label = one.label
    if one.low is None or one.high is None or one.p_value is None:
        return (
            f"trial {one.number} minus the base model on {label}: {number(one.value)}; significance unknown: no "
            "standard error"
        )
    value, low, high = interval(one.value, one.low, one.high)
    better = "better than" if one.value > 0 else "worse than"
    words = better if one.significant else "not significantly different from"
    paired = ", paired" if one.paired else ""
    return (
        f"trial {one.number} is {words} the base model on {label}: difference {value} (simultaneous 95 % confidence "
        f"interval {low} to {high}{paired}; p = {one.p_value:.3g}, Holm-corrected)"
    )


def _notes(one: SealedTrial) -> list[str]:
    name = one.name
    lines = []
    if one.failure is not None:
        lines.append(f"{name} could not be scored ({one.failure})")
    if one.trained_again:
        same = ""
        if one.loss is not None and one.recorded_loss is not None:
            same = f"; its validation loss is {number(one.loss)}, and was {number(one.recorded_loss)}"
        lines.append(f"{name} was trained again for the test, since its adapter was not kept{same}")
    return lines
