"""The tables of a report as text: columns and rows. The HTML page and the Markdown document print the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hpotune.config.yaml_source import Value
from hpotune.reporting.derived.repeats_table import repeats_rows
from hpotune.reporting.format import number, race_text, score, short, state_text
from hpotune.reporting.page import origin_tables, sealed_tables
from hpotune.reporting.page.charts.front_figures import probability_text
from hpotune.reporting.page.charts.time_figures import use_text
from hpotune.reporting.page.text_table import TextTable, settings
from hpotune.reporting.plan_table import COMPARED, quantity
from hpotune.reporting.views.study_report import StudyReport, option_text
from hpotune.reporting.views.trial_view import TrialView, scored

MOST_TRIALS = 200
"""Trials that the page lists: the best ones, then the latest."""


def settings_table(report: StudyReport) -> TextTable | None:
    """The best setting beside the base model, the cheapest of the trials that may be the best, and the ranges."""
    best = report.best.best
    if best is None:
        return None
    chosen, baseline = report.best.recommended, report.best.baseline
    cheapest = next(
        (one for one in report.trials if chosen and one.number == chosen.number != best.number), None
    )
    shown = [one for one in (best, cheapest, baseline) if one is not None]
    heads = [f"trial {best.number} (best)"]
    heads += [f"trial {cheapest.number} (cheapest)"] if cheapest else []
    heads += ["base model"] if baseline else []
    rows = [
        (
            one.label,
            *(score(*scored(trial, one.label)) for trial in shown),
            "",
        )
        for one in report.scores
    ]
    labels = [one.label for one in report.scores]
    ranges = {one.name: one.range_text for one in report.parameters}
    for name in dict.fromkeys([*ranges, *best.params]):
        values = (dict(settings(trial)).get(name, "") for trial in shown)
        rows.append((name, *values, ranges.get(name, "")))
    for name in ("trainable_parameters", "train_seconds", "peak_memory_gb", "eval_loss"):
        if name not in labels and any(name in trial.metrics for trial in shown):
            rows.append((name, *(_quantity(trial.metrics.get(name)) for trial in shown), ""))
    return TextTable(columns=("", *heads, "searched range"), rows=tuple(rows))


def _quantity(value: Value) -> str:
    """A measured number; large ones with separated thousands."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) < 10_000:
        return number(value)
    return f"{value:,.0f}"


def trials_table(report: StudyReport, *, most: int | None = MOST_TRIALS) -> TextTable:
    """A line for each trial that has started."""
    labels = [one.label for one in report.scores]
    names = list(dict.fromkeys(name for trial in report.trials for name in trial.params))
    shown = _listed(report, most)
    rows = [
        (
            str(trial.number),
            "base model" if trial.kind == "baseline" else state_text(trial.state),
            *(score(*scored(trial, label)) for label in labels),
            *(_text(trial.params.get(name)) for name in names),
            "" if trial.seconds is None else number(round(trial.seconds / 60, 2)),
            _remark(trial, report.best.excluded_by_rule.get(trial.number, ())),
        )
        for trial in shown
    ]
    note = ""
    if len(shown) < len(report.trials):
        note = f"{len(shown)} of {len(report.trials)} trials: the best ones; `--format csv` holds all"
    right = frozenset({0, *range(2, 3 + len(labels) + len(names))})
    columns = ("trial", "state", *labels, *names, "min", "remark")
    return TextTable(columns=columns, rows=tuple(rows), numbers=right, note=note)


def _listed(report: StudyReport, most: int | None) -> Sequence[TrialView]:
    if most is None or len(report.trials) <= most:
        return report.trials
    first = report.best.ranked_by
    sign = -1.0 if first.direction == "maximize" else 1.0
    values = [(trial, scored(trial, first.label)[0]) for trial in report.trials if trial.values]
    ranked = sorted(
        (
            (trial.kind != "baseline", sign * value, trial.number)
            for trial, value in values
            if value is not None
        )
    )
    shown = {number for _, _, number in ranked[:most]}
    return [trial for trial in report.trials if trial.number in shown]


def _text(value: Value) -> str:
    return "" if value is None else option_text(value)


def _remark(trial: TrialView, excluded: Sequence[str]) -> str:
    failure = f"{trial.failure.cause}: {trial.failure.message}" if trial.failure else ""
    violated = f"violates {', '.join(trial.breaks)}" if trial.breaks else ""
    attempts = f"{trial.attempts} attempts" if trial.attempts > 1 else ""
    left_out = f"left out by the rule: {'; '.join(excluded)}" if excluded else ""
    ended = race_text(trial.race) if trial.race else ""
    return "; ".join(text for text in (failure[:300], ended, violated, left_out, attempts) if text)


def front_table(report: StudyReport) -> TextTable | None:
    """The trials that are on the Pareto front, or may be, with the probability of that."""
    pareto = report.best.pareto
    if pareto is None:
        return None
    by_number = {trial.number: trial for trial in report.trials}
    labels = [one.label for one in report.best.objectives]
    found = [(one, "on it" if one.certain else "on it, uncertain") for one in pareto.members]
    found += [(one, "may be on it") for one in pareto.candidates]
    rows = tuple(
        (
            str(one.number),
            where,
            probability_text(one),
            *(score(*scored(by_number[one.number], label)) for label in labels),
        )
        for one, where in found[:MOST_TRIALS]
        if one.number in by_number
    )
    columns = ("trial", "Pareto front", "probability", *labels)
    return TextTable(columns=columns, rows=rows, numbers=frozenset({0, *range(2, 3 + len(labels))}))


def agreement_table(report: StudyReport) -> TextTable | None:
    """Correlations of the objective with other scores, over all trials and among the better half."""
    agreements = report.agreements
    if not agreements:
        return None
    rows = tuple(
        (
            one.other,
            str(len(one.pairs)),
            *(_two(value) for value in (one.pearson, one.spearman)),
            str(one.good),
            *(_two(value) for value in (one.pearson_good, one.spearman_good)),
        )
        for one in agreements
    )
    columns = (
        f"{agreements[0].objective} with", "trials", "Pearson", "Spearman", "better half", "Pearson in it",
        "Spearman in it",
    )  # fmt: skip
    return TextTable(columns=columns, rows=rows, numbers=frozenset(range(1, 7)))


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def repeats_table(report: StudyReport) -> TextTable | None:
    """The scores of each finalist with new seeds."""
    result = report.best.repeats
    if result is None or not result.trials:
        return None
    columns, rows = repeats_rows(result)
    return TextTable(columns=columns, rows=rows)


def hours_table(report: StudyReport) -> TextTable | None:
    """The hours by their use."""
    if not report.cost.total:
        return None
    rows = [
        (use_text(one), short(one.hours), f"{one.hours / report.cost.total:.1%}", str(one.count))
        for one in report.cost.uses
    ]
    rows.append(("all", short(report.cost.total), "100.0%", ""))
    return TextTable(
        columns=("", report.cost.unit, "share", "attempts"), rows=tuple(rows), numbers=frozenset({1, 2, 3})
    )


def planned_table(report: StudyReport) -> TextTable | None:
    """The recorded plan beside what was measured."""
    planned, actual = report.planned or {}, report.actual or {}
    rows = tuple(
        (label, quantity(key, planned.get(key)), quantity(key, actual.get(key)))
        for key, label in COMPARED
        if (planned.get(key) or actual.get(key))
    )
    if not planned or not rows:
        return None
    head = f"actual ({actual.get('state', 'not started')})"
    return TextTable(columns=("", "planned", head), rows=rows, numbers=frozenset({1, 2}))


TABLES: Mapping[str, tuple[str, Callable[[StudyReport], TextTable | None]]] = {
    "settings": ("The best setting", settings_table),
    "repeats": ("Finalists with new seeds", repeats_table),
    "sealed": ("The sealed test", sealed_tables.sealed_table),
    "differences": ("The sealed test against the base model", sealed_tables.differences_table),
    "subjects": ("Tasks of the sealed test", sealed_tables.subjects_table),
    "openings": ("Openings of the sealed test", sealed_tables.openings_table),
    "front": ("The Pareto front", front_table),
    "agreement": ("The objective and other scores", agreement_table),
    "hours": ("Hours by use", hours_table),
    "planned": ("Planned and actual", planned_table),
    "checks": ("Sanity checks", origin_tables.checks_table),
    "failures": ("Failed trials", origin_tables.failures_table),
    "trials": ("All trials", trials_table),
    "provenance": ("Provenance", origin_tables.provenance_table),
    "reruns": ("Reruns", origin_tables.reruns_table),
}
"""Name -> title, and the function that makes it; in the order of the Markdown document."""


def report_tables(report: StudyReport) -> dict[str, TextTable | None]:
    """All tables of a report by name; None where the study has nothing for one."""
    return {name: made(report) for name, (_, made) in TABLES.items()}
