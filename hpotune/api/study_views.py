"""What a study shows: its status with what Slurm says of its jobs, its trials, its best one, its report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.api.call_messages import Line
from hpotune.api.opened_study import read_study, read_trials
from hpotune.config.schema.study_config import StudyConfig
from hpotune.launch.cancellation import cancelled_how
from hpotune.launch.stale_workers import lost_trials
from hpotune.records.trial import TrialRow
from hpotune.reporting.views.status import StudyStatus, study_status
from hpotune.reporting.views.trial_view import TrialView, trial_view
from hpotune.slurm.commands import STATUS_S, limited_time
from hpotune.slurm.study_jobs import cached_jobs
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.openings import opening_folder, read_openings

if TYPE_CHECKING:  # `status` needs neither
    from hpotune.reporting.views.best import BestResult
    from hpotune.reporting.views.study_report import StudyReport


def read_status(target: Path, chosen: Path | None, *, note: Line) -> StudyStatus:
    """The status of a study as it is now."""
    return status_of(*read_trials(target, chosen, note=note), note=note)


def status_of(
    folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow], *, note: Line
) -> StudyStatus:
    """The status of a study whose trials were read, with what Slurm says of its jobs."""
    lease_s = config.execution.lease_s
    with limited_time(STATUS_S):
        queue = cached_jobs(folder, rows, lease_s=lease_s)
        left = sum(row.decided for row in rows) < config.budget.trials
        cancelled_by = cancelled_how(folder, queue.rows) if left else ""
    return study_status(
        folder,
        config,
        rows,
        queue.rows,
        lost_trials(rows, queue.rows, lease_s=lease_s),
        now=datetime.now(),
        queue_age_s=round(queue.age_s, 1) if queue.rows else None,
        cluster=f"not reachable: {queue.error}" if queue.error else None,
        missing=queue.missing,
        cancelled_by=cancelled_by,
        repeats=read_status(folder.repeats.path, None, note=note) if _has_repeats(folder, config) else None,
        opening=_opening(folder, note=note),
    )


def _opening(folder: StudyFolder, *, note: Line) -> StudyStatus | None:
    """The status of the latest opening of the sealed test; None before it is made."""
    openings = read_openings(folder)
    path = opening_folder(folder, len(openings))
    made = openings and StudyFolder(path=path).resolved_file.is_file()
    return read_status(path, None, note=note) if made else None


def _has_repeats(folder: StudyFolder, config: StudyConfig) -> bool:
    return bool(config.search.repeats) and folder.repeats.resolved_file.is_file()


def trial_views(config: StudyConfig, rows: Sequence[TrialRow]) -> list[TrialView]:
    """The trials that have started, by number."""
    started = [row for row in rows if row.state != "waiting" or row.attempts]
    return [trial_view(config.score.objective, row) for row in started]


def read_best(target: Path, chosen: Path | None, *, rule: str | None, note: Line) -> BestResult:
    """The best trial; `rule`: by another rule than that of the study file."""
    from hpotune.config.rule_option import parse_rule
    from hpotune.reporting.views.best import best_result
    from hpotune.schedule.ranking import measured_names

    found, config, rows = read_trials(target, chosen, note=note)
    tried = None if rule is None else parse_rule(rule, config, measured=measured_names(config, rows))
    return best_result(found, config, rows, rule=tried)


def read_report(target: Path, chosen: Path | None, *, note: Line) -> StudyReport:
    """The report of a study as it is now."""
    from hpotune.reporting.views.study_report import study_report

    folder, study, rows = read_study(target, chosen, note=note)
    status = status_of(folder, study.config, rows, note=note)
    return study_report(folder, study, rows, status, now=datetime.now())
