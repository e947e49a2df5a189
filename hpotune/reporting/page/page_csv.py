"""Every trial of a report as CSV: its point by dotted names, its scores with their errors, and all that was measured.

The columns of the point are those that `search.start_from` reads from a CSV file. Text that a spreadsheet would compute
or that cannot be seen is a JSON string, which `search.start_from` and `hpotune import` read back.
"""

from __future__ import annotations

import csv
import io

from hpotune.config.space.start_from import point_cell
from hpotune.config.text.outside_text import csv_json, csv_text
from hpotune.config.yaml_source import Value
from hpotune.reporting.views.study_report import StudyReport


def csv_table(report: StudyReport) -> str:
    """The table; a cell that a trial does not have is empty."""
    trials = report.trials
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    labels = [one.label for one in report.best.objectives]
    metrics = [
        name
        for name in dict.fromkeys(name for trial in trials for name in trial.metrics)
        if name not in labels
    ]
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    errors = [f"{label}_stderr" for label in labels]
    metrics = [name for name in metrics if name not in errors]
    own = ("trial", "kind", "state", "attempts", "start", "end", "seconds", "job", "host", "cause", "message")
    rows.writerow(map(csv_text, [*own, *names, *labels, *errors, *metrics]))
    for trial in trials:
        failure = trial.failure
        rows.writerow(
            [
                trial.number,
                trial.kind,
                trial.state,
                trial.attempts,
                *(_cell(value) for value in (trial.start, trial.end, trial.seconds, trial.job, trial.host)),
                failure.cause if failure else "",
                csv_text(failure.message) if failure else "",
                *(point_cell(trial.params[name]) if name in trial.params else "" for name in names),
                *(_cell(trial.values.get(label)) for label in labels),
                *(_cell(trial.stderrs.get(label)) for label in labels),
                *(_cell(trial.metrics.get(name)) for name in metrics),
            ]
        )
    return written.getvalue()


def _cell(value: Value) -> str:
    """Numbers with all their digits, lists as JSON."""
    if value is None:
        return ""
    return csv_text(value) if isinstance(value, str) else csv_json(value)
