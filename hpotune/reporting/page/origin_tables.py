"""Tables of what a result rests on: sanity checks, failed trials, provenance, reruns."""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.reporting.origin.provenance_table import (
    environment_rows,
    other_environment_rows,
    rerun_text,
    study_provenance_rows,
)
from hpotune.reporting.page.text_table import TextTable, listed
from hpotune.reporting.views.provenance_view import StudyProvenanceView
from hpotune.reporting.views.study_report import StudyReport

_MOST_DIFFERENCES = 6
"""Differences of another environment that are listed; `hpotune provenance --json` has all."""


def checks_table(report: StudyReport) -> TextTable | None:
    """The sanity checks."""
    if not report.checks:
        return None
    rows = tuple(
        (one.name, _MEANING[one.name], f"{one.passed} of {one.read} read", str(one.failed))
        if one.name not in report.setup.switched_off
        else (one.name, _MEANING[one.name], "switched off", "")
        for one in report.checks
    )
    return TextTable(columns=("check", "what it says", "passed", "failed trials"), rows=rows)


_MEANING = {
    "identity": "a new adapter gives the base model's loss",
    "moved": "the trained adapter is finite and differs from its start",
    "reload": "read back from disk it gives the same loss",
}


def failures_table(report: StudyReport) -> TextTable | None:
    """Failed trials by cause and message."""
    groups: dict[tuple[str, str], list[int]] = {}
    for trial in report.trials:
        if trial.state == "failed" and trial.failure is not None:
            groups.setdefault((trial.failure.cause, trial.failure.message[:500]), []).append(trial.number)
    if not groups:
        return None
    ordered = sorted(groups.items(), key=lambda one: -len(one[1]))[:30]
    rows = tuple(
        (
            cause,
            str(len(numbers)),
            ", ".join(map(str, numbers[:12])) + (" …" if len(numbers) > 12 else ""),
            message,
        )
        for (cause, message), numbers in ordered
    )
    return TextTable(columns=("cause", "count", "trials", "message"), rows=rows, numbers=frozenset({1}))


def provenance_table(report: StudyReport) -> TextTable:
    """What is needed to repeat the study: what was studied, where, with which content, code and packages."""
    setup, origin = report.setup, report.provenance
    made = [
        (setup.kind, setup.subject),
        ("training data", setup.data),
        ("search", _search_text(report)),
        ("trial processes", setup.processes),
        ("sealed test", ", ".join(setup.sealed_tasks)),
        ("study's folder", str(report.best.folder)),
        *(_origin_rows(origin) if origin is not None else ()),
        ("this report", f"hpotune {report.version}, {report.made}"),
    ]
    return TextTable(columns=("", ""), rows=tuple((key, text) for key, text in made if text))


def _origin_rows(origin: StudyProvenanceView) -> Iterator[tuple[str, str]]:
    """Provenance of the study and its trials; of several environments the first, and what differs in the others."""
    yield from study_provenance_rows(origin).items()
    if not origin.environments:
        yield (
            "packages where it was made",
            ", ".join(f"{name} {one}" for name, one in origin.versions.items()),
        )
        return
    first, *others = origin.environments
    yield from environment_rows(first.environment).items()
    for one in others:
        differing = [f"{what} {text}" for what, text in other_environment_rows(one).items()]
        shown = "; ".join(differing[:_MOST_DIFFERENCES])
        more = len(differing) - _MOST_DIFFERENCES
        yield listed(one.trials), f"ran with {shown}" + (f" and {more} more differences" if more > 0 else "")


def reruns_table(report: StudyReport) -> TextTable | None:
    """What `hpotune rerun` found: whether the same trial gave the same numbers again."""
    if not report.reruns:
        return None
    rows = tuple(
        (
            str(one.trial),
            one.folder.name,
            f"{sum(each.equal for each in one.numbers if each.decides)} of "
            f"{sum(each.decides for each in one.numbers)}",
            rerun_text(one),
        )
        for one in report.reruns
    )
    columns = ("trial", "rerun", "equal losses and scores", "result")
    return TextTable(columns=columns, rows=rows, numbers=frozenset({0, 2}))


def _search_text(report: StudyReport) -> str:
    setup = report.setup
    pruner = f", pruner {setup.pruner}" if setup.pruner != "none" else ""
    return f"{setup.algorithm}{pruner}, seed {setup.seed}, {setup.mode}, {setup.parallel} at a time"
