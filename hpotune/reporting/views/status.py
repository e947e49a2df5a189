"""Where a study stands: what `status` and `status --watch` show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from hpotune.config.schema.execution import Cause
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.derived_points import POSITION
from hpotune.records.jobs import JobKind, JobRow
from hpotune.records.rehearsal_record import RehearsalRecord
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import LOCAL, RegretBound, TrialRow
from hpotune.reporting.progress.trial_progress import MOST_READ, TrialProgress, trial_progress
from hpotune.reporting.views.forecast import Forecast, forecast
from hpotune.reporting.views.job_start import start_failures
from hpotune.reporting.views.rule_view import RuleView, rule_view
from hpotune.reporting.views.trial_view import TrialView, trial_view
from hpotune.reporting.wait_reasons import explain
from hpotune.schedule.best_trials import best_trials
from hpotune.schedule.failures import bad_nodes
from hpotune.schedule.gpu_hours import gpu_hours_used
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.workspace.folder import StudyFolder

StudyState = Literal["done", "stopped", "running", "queued", "idle", "cancelling", "cancelled"]
"""stopped: by a budget, a goal or failures. idle: trials are left and no job runs or can start. cancelling: after
`hpotune cancel`, until all jobs and workers have ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialCounts:
    """Trials by state."""

    budget: int
    """`budget.trials`."""
    finished: int
    running: int
    stopped: int
    """Pruned at a rung, or while they were scored."""
    raced: int
    """Those of the pruned ones whose scoring ended early (`score.race`): their scores are estimates."""
    waiting: int
    """Not started."""
    paused: int
    """Interrupted; they continue when a worker is free."""
    resting: int
    """Scored at a rung; they wait for promotion."""
    lost: int
    """Their worker is gone; a follow-up or another worker starts them again."""
    failed: int
    left: int
    """Of the budget: neither finished, pruned nor running."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningTrial:
    """A trial and the worker that runs it."""

    number: int
    host: str | None
    job: str | None
    attempt: int
    """From 1."""
    rung: int | None
    """The rung it trains to, from 0; None without rungs."""
    seconds: float | None
    """Since this attempt started."""
    pid: int | None = None
    """The worker's process where it runs outside Slurm."""
    silent_s: float | None = None
    """Seconds since its worker's last heartbeat, where that is longer than the lease; None: it is heard of."""
    progress: TrialProgress | None = None
    """Its phase and steps; None: not known, or one of many trials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """A Slurm job or array element of the study."""

    id: str
    """JOB or ARRAY_ELEMENT."""
    kind: JobKind
    """own: submitted by the user."""
    state: str
    """Slurm's job state."""
    reason: str
    """Slurm's pending reason."""
    why: str
    """The pending reason explained, with what to do; why the worker could not start; why the state is not known."""
    estimate: str | None
    """Expected start by Slurm, local time, ISO 8601."""
    exit_code: str
    """Slurm's EXIT:SIGNAL; empty while it runs."""
    trial: int | None
    """The trial that it runs."""

    @property
    def active(self) -> bool:
        """Whether Slurm still has it, pending or running."""
        return JobRow(id=self.id, state=self.state).active


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyStatus:
    """A study: its trials, the best so far, its jobs, its cost, and what is left."""

    study: str
    folder: Path
    state: StudyState
    stop: StopReason | None
    """Why no further trial may start; None while one may."""
    trials: TrialCounts
    running_trials: tuple[RunningTrial, ...]
    """Longest first."""
    failures: Mapping[Cause, int]
    """Failed trials by cause."""
    interrupted: Mapping[Cause, int]
    """Attempts that were interrupted and continued, by cause."""
    rule: RuleView | None
    """The rule that chooses the best trial; None: the first objective, or the Pareto front."""
    best: tuple[TrialView, ...]
    """The best trial so far, or the Pareto front."""
    gpu_hours: float
    """Used by all attempts, up to now."""
    regret_bound: RegretBound | None
    """What more trials could gain, by the latest estimate; None without `budget.plateau`."""
    forecast: Forecast
    bad_nodes: Mapping[str, str]
    """Nodes that new jobs exclude, and why."""
    jobs: tuple[JobView, ...]
    queue_age_s: float | None = None
    """Age of Slurm's answer in seconds; None for a study without jobs."""
    cluster: str | None = None
    """Why Slurm did not answer; None where it did."""
    missing: tuple[str, ...] | None = None
    """Facts that Slurm's answer does not hold, a sentence each; None where it holds all."""
    rehearsal: RehearsalRecord | None = None
    """Whether its trials were rehearsed; None: it was made by a worker, or is no fine-tuning."""
    cancelled_by: str | None = None
    """What cancelled the study, such as `hpotune cancel` or a scancel of all its jobs; None where nothing did."""
    held: tuple[str, ...] = ()
    """Jobs that Slurm itself holds after failed launches."""
    repeats_wanted: int = 0
    """`search.repeats`: new seeds of each finalist, once the search has ended; 0: none."""
    repeats: StudyStatus | None = None
    """The study of the finalists' repeats; None before it is made."""
    opening: StudyStatus | None = None
    """The latest opening of the sealed test, a study too; None before the first one is made."""

    @property
    def opening_runs(self) -> bool:
        """Whether the sealed test was opened and its trials have not all ended, or one of its jobs is active."""
        if self.opening is None:
            return False
        active = any(job.active for job in self.opening.jobs)
        return active or self.opening.state not in ("done", "stopped", "cancelled")


def study_status(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[TrialRow],
    jobs: Sequence[JobRow],
    lost: Sequence[int],
    *,
    now: datetime,
    queue_age_s: float | None = None,
    cluster: str | None = None,
    missing: Sequence[str] = (),
    cancelled_by: str = "",
    repeats: StudyStatus | None = None,
    opening: StudyStatus | None = None,
) -> StudyStatus:
    """The status of a study. `lost`: running trials whose worker is stale and that nobody has requeued yet.

    `cancelled_by`: what cancelled it, by its folder or by Slurm's record of its jobs; empty where nothing did.
    """
    running = [row for row in rows if row.state == "running" and row.number not in lost]
    silent = {row.number: since for row in running if (since := _silent_s(config, row, now=now)) is not None}
    stop = stop_reason(config, rows, now=now)
    state = _state(config, rows, jobs, lost, stop=stop, cancelled_at=_cancelled_at(folder))
    if state == "idle" and cancelled_by:
        state = "cancelled"
    return StudyStatus(
        study=config.name,
        folder=folder.path,
        state=state,
        stop=stop,
        trials=_counts(config, rows, running=len(running), lost=len(lost)),
        running_trials=tuple(
            _running(
                row,
                silent_s=silent.get(row.number),
                progress=trial_progress(folder, config, row, now=now) if position < MOST_READ else None,
                now=now,
            )
            for position, row in enumerate(sorted(running, key=lambda r: r.start or 0.0))
        ),
        failures=Counter(row.failure.cause for row in rows if row.state == "failed" and row.failure),
        interrupted=Counter(
            a.cause for row in rows for a in row.attempts if a.cause and a.outcome == "paused"
        ),
        rule=rule_view(config.score.objective, config.best),
        best=()
        if config.search.is_derived  # a sealed test, for instance, chooses nothing
        else tuple(
            trial_view(config.score.objective, row)
            for row in best_trials(config.score.objective, rows, config.best)
        ),
        gpu_hours=round(gpu_hours_used(config, rows, now=now), 4),
        regret_bound=next((row.regret_bound for row in reversed(rows) if row.regret_bound), None),
        forecast=forecast(config, rows, jobs, lost, silent=silent, over=stop is not None, now=now),
        bad_nodes={host: node.text for host, node in bad_nodes(rows, since=folder.nodes_tried_again).items()},
        jobs=_jobs(jobs, running, start_failures(folder, jobs)),
        queue_age_s=queue_age_s,
        cluster=cluster,
        missing=tuple(missing) or None,
        rehearsal=folder.rehearsal(),
        cancelled_by=(cancelled_by or None) if state in ("cancelling", "cancelled") else None,
        held=tuple(job.id for job in jobs if job.held_by_slurm),
        repeats_wanted=config.search.repeats,
        repeats=repeats,
        opening=opening,
    )


def _counts(config: StudyConfig, rows: Sequence[TrialRow], *, running: int, lost: int) -> TrialCounts:
    states = Counter(row.state for row in rows)
    left = max(0, config.budget.trials - states["finished"] - states["stopped"] - running)
    paused, resting = sum(row.paused for row in rows), sum(row.awaits_promotion for row in rows)
    if config.search.is_derived:  # no other trial replaces one that failed
        points = {row.params.get(POSITION) for row in rows if row.params and row.state != "failed"}
        left -= len(
            {row.params.get(POSITION) for row in rows if row.params and row.state == "failed"} - points
        )
    return TrialCounts(
        budget=config.budget.trials,
        finished=states["finished"],
        running=running,
        stopped=states["stopped"],
        raced=sum(row.race is not None for row in rows),
        waiting=max(0, left - paused - resting - lost),
        paused=paused,
        resting=resting,
        lost=lost,
        failed=states["failed"],
        left=left,
    )


def _state(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    jobs: Sequence[JobRow],
    lost: Sequence[int],
    *,
    stop: StopReason | None,
    cancelled_at: float | None,
) -> StudyState:
    if sum(row.decided for row in rows) >= config.budget.trials:
        return "done"
    running = [row for row in rows if row.state == "running" and row.number not in lost]
    states = {job.state for job in _startable(jobs)}
    if cancelled_at is not None and all((row.start or 0.0) <= cancelled_at for row in running):
        return "cancelling" if running or states else "cancelled"
    if running:
        return "running"
    if stop:
        return "stopped"
    return "running" if "RUNNING" in states else "queued" if states else "idle"


def _startable(jobs: Sequence[JobRow]) -> list[JobRow]:
    """Active jobs but those that Slurm holds, and the follow-ups that wait for nothing but these."""
    active = [job for job in jobs if job.active]
    found = [job for job in active if not job.held_by_slurm]
    waits = all(job.kind == "follow-up" and job.state == "PENDING" for job in found)
    return [] if waits and len(found) < len(active) else found


def _cancelled_at(folder: StudyFolder) -> float | None:
    """When `hpotune cancel` was called, in Unix seconds; None where the study was not cancelled, or is continued."""
    try:
        return folder.cancelled.stat().st_mtime
    except OSError:
        return None


def _silent_s(config: StudyConfig, row: TrialRow, *, now: datetime) -> float | None:
    """Seconds without a heartbeat of a running trial's worker, if its lease has passed; None otherwise."""
    heard = max((at for at in (row.last_heartbeat, row.start) if at is not None), default=None)
    since = None if heard is None else now.timestamp() - heard
    return round(since, 1) if since is not None and since > config.execution.lease_s else None


def _running(
    row: TrialRow, *, silent_s: float | None, progress: TrialProgress | None, now: datetime
) -> RunningTrial:
    return RunningTrial(
        number=row.number,
        host=row.worker.host if row.worker else None,
        job=row.worker.job if row.worker else None,
        attempt=row.tries + 1,
        rung=row.rung,
        seconds=round(max(0.0, now.timestamp() - row.start), 1) if row.start is not None else None,
        pid=row.worker.pid if row.worker and row.worker.job == LOCAL else None,
        silent_s=silent_s,
        progress=progress,
    )


def _jobs(
    jobs: Sequence[JobRow], running: Sequence[TrialRow], failures: Mapping[str, str]
) -> tuple[JobView, ...]:
    trials: dict[str, int] = {}
    for row in running:
        if row.worker:
            trials.setdefault(row.worker.job, row.number)
    return tuple(_job(job, trials.get(job.id), failures.get(job.id) or _why(job)) for job in jobs)


def _why(job: JobRow) -> str:
    """Why it waits. A running element of a held array has the reason too; it is not the one that is held."""
    if job.state == "PENDING":
        return explain(job.reason)
    return job.reason if job.state in ("GONE", "UNKNOWN") else ""


def _job(job: JobRow, trial: int | None, why: str) -> JobView:
    return JobView(
        id=job.id,
        kind=job.kind,
        state=job.state,
        reason=job.reason,
        why=why,
        estimate=job.estimate or None,
        exit_code=job.exit_code,
        trial=trial,
    )
