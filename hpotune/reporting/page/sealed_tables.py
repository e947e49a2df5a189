"""Tables of the sealed test: scores, differences to the base model, single tasks of groups, openings."""

from __future__ import annotations

from datetime import datetime

from hpotune.reporting.format import interval, number, score
from hpotune.reporting.page.text_table import TextTable, signed
from hpotune.reporting.views.sealed_test import SealedDifference, SealedTrial
from hpotune.reporting.views.study_report import StudyReport


def sealed_table(report: StudyReport) -> TextTable | None:
    """The scores of the base model and the finalists in the sealed test."""
    result = report.sealed
    if result is None or not result.tested:
        return None
    names = list(dict.fromkeys(one.label for trial in result.tested for one in trial.scores))
    rows = []
    for trial in result.tested:
        scores = {one.label: score(one.value, one.stderr) for one in trial.scores}
        rows.append((trial.name, *(scores.get(name, "") for name in names), _remark(trial)))
    columns = ("", *names, "")
    return TextTable(columns=columns, rows=tuple(rows), numbers=frozenset(range(1, 1 + len(names))))


def _remark(trial: SealedTrial) -> str:
    if trial.failure:
        return f"could not be scored ({trial.failure[:300]})"
    if trial.state != "scored":
        return trial.state
    if not trial.trained_again:
        return ""
    losses = (
        f"; validation loss {number(trial.loss)}, in the search {number(trial.recorded_loss)}"
        if trial.loss is not None and trial.recorded_loss is not None
        else ""
    )
    return f"trained again, since its adapter was not kept{losses}"


def differences_table(report: StudyReport) -> TextTable | None:
    """Each finalist's difference to the base model on each task, with its interval."""
    result = report.sealed
    if result is None or not result.differences:
        return None
    rows = tuple(
        (
            f"trial {one.number}",
            one.label,
            *_difference(one),
            "" if one.p_value is None else f"{one.p_value:.2g}",
            "significant"
            if one.significant
            else "not significant"
            if one.p_value is not None
            else "not known",
        )
        for one in result.differences
    )
    columns = ("", "task", "minus the base model", "95 % interval", "p", "")
    note = (
        "Intervals hold together for all finalists and tasks; p-values are corrected by Holm's rule. Positive "
        "differences are better"
    )
    return TextTable(columns=columns, rows=rows, numbers=frozenset({2, 3, 4}), note=note)


def _difference(one: SealedDifference) -> tuple[str, str]:
    """The difference and its interval."""
    if one.low is None or one.high is None:
        return signed(one.value), ""
    value, low, high = interval(one.value, one.low, one.high)
    return signed(value), f"{signed(low)} to {signed(high)}"


def subjects_table(report: StudyReport) -> TextTable | None:
    """The sealed scores of the single tasks of groups."""
    every = [one for one in report.sealed.tested if one.subjects] if report.sealed else []
    if not every:
        return None
    names = list(dict.fromkeys(one.label for trial in every for one in trial.subjects))
    found = [{one.label: score(one.value, one.stderr) for one in trial.subjects} for trial in every]
    heads = [trial.name for trial in every]
    rows = tuple((name, *(scores.get(name, "") for scores in found)) for name in names)
    return TextTable(columns=("task", *heads), rows=rows, numbers=frozenset(range(1, 1 + len(heads))))


def openings_table(report: StudyReport) -> TextTable | None:
    """Each opening of the sealed test."""
    if report.sealed is None:
        return None
    rows = tuple(
        (
            str(one.number),
            f"{datetime.fromtimestamp(one.opened):%Y-%m-%d %H:%M}",
            f"{one.user} on {one.host}",
            ", ".join(map(str, one.trials)),
        )
        for one in report.sealed.openings
    )
    return TextTable(columns=("opening", "when", "by", "trials"), rows=rows)
