"""The status of a study for the terminal: what `status` prints and `status --watch` keeps up to date."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.records.rehearsal_record import RehearsalRecord
from hpotune.report.advice import stop_advice
from hpotune.report.console import plain_table
from hpotune.report.format import counts, length, moment, number, score, state_text
from hpotune.report.views.status import JobView, RunningTrial, StudyStatus

SHOWN = 16
"""Running trials and jobs that are listed one by one."""
RANGES_WIDTH = 24
"""Characters of a list of elements; a longer one is shown as their number."""
_STATES = ("stopped", "running", "resting", "waiting", "paused", "failed", "lost")


def status_table(status: StudyStatus, *, now: datetime) -> RenderableType:
    """The study, its trials by state, the best so far, what runs, its jobs and why they wait, cost and forecast."""
    lines: list[RenderableType] = [Text(headline(status), style="bold")]
    lines += [Text(line) for line in sentences(status, now=now)]
    if status.running_trials:
        lines += [Text(""), _running(status.running_trials)]
    if status.jobs:
        lines += [Text(""), _jobs(status.jobs, now=now)]
    return Group(*lines)


def headline(status: StudyStatus) -> str:
    """`bowl: running (12 of 50 finished, 4 running, 34 waiting)`."""
    trials = status.trials
    parts = [f"{trials.finished} of {trials.budget} finished"]
    over = status.state in ("done", "stopped", "cancelled")
    for state in _STATES:
        if count := getattr(trials, state):
            word = "not started" if state == "waiting" and over else state_text(state)
            parts.append(f"{count} {word}")
    return f"{status.study}: {status.state} ({', '.join(parts)})"


def best_so_far(status: StudyStatus) -> list[str]:
    """The best trials, a line each; at most three of a Pareto front."""
    lines = []
    for row in status.best[:3]:
        values = ", ".join(f"{label} {score(v, row.stderrs.get(label))}" for label, v in row.values.items())
        note = " (± standard error)" if any(error is not None for error in row.stderrs.values()) else ""
        lines.append(f"best so far: trial {row.number}, {values}{note}")
    return lines


def sentences(status: StudyStatus, *, now: datetime) -> list[str]:
    """Everything but the tables, a line each."""
    lines = []
    if status.stop and status.state != "done":
        lines.append(f"stopped: {status.stop.text}")
    if status.stop and status.state == "stopped":
        lines.append(f"next: {stop_advice(status.stop, status.folder)}")
    if status.state == "idle":
        lines.append("trials are left, but no job runs or waits: continue with `hpotune resume`")
    if status.state in ("cancelling", "cancelled"):
        wait = "its jobs are ending; " if status.state == "cancelling" else ""
        lines.append(f"cancelled by `hpotune cancel`: {wait}`hpotune resume {status.folder}` continues it")
    lines += _silent(status.running_trials)
    if status.rehearsal is not None and status.rehearsal.state != "passed":
        lines += _rehearsal(status.rehearsal)
    lines += best_so_far(status)
    if status.failures:
        lines.append(f"failed: {counts(status.failures)}; `hpotune why STUDY N` explains one")
    if status.interrupted:
        lines.append(f"interrupted and continued: {counts(status.interrupted)}")
    if bound := status.regret_bound:
        lines.append(
            f"the next {bound.ahead} trials are expected to gain {bound.gain:.2g}; no point is better than the best by "
            f"more than {bound.regret:.2g} (95 % confidence, from {bound.trials} trials)"
        )
    lines += [f"new jobs exclude node {host}: {why}" for host, why in status.bad_nodes.items()]
    lines += _cost(status, now=now)
    if status.cluster:
        lines.append(f"Slurm: {status.cluster}")
    elif (status.queue_age_s or 0) >= 1:
        lines.append(f"job states are {length(status.queue_age_s or 0)} old")
    return [*lines, *(f"Slurm: {text}" for text in status.missing or ())]


def _silent(rows: Sequence[RunningTrial]) -> list[str]:
    """Which running trials have a worker that no longer writes its heartbeat."""
    found = [row for row in rows if row.silent_s is not None]
    lines = [
        f"trial {row.number}: no heartbeat of its worker ({_worker(row)} on {row.host}) for "
        f"{length(row.silent_s or 0)}: it hangs, is stopped, cannot write, or its clock is wrong; {_end_of(row)} lets "
        "another worker continue the trial"
        for row in found[:3]
    ]
    return lines + [f"and {len(found) - 3} more trials without a heartbeat"] * (len(found) > 3)


def _worker(row: RunningTrial) -> str:
    """The job of a trial's worker, or its process outside Slurm."""
    return (row.job or "") if row.pid is None else f"local process {row.pid}"


def _end_of(row: RunningTrial) -> str:
    return f"`scancel {row.job}`" if row.pid is None else f"`kill -9 {row.pid}` there"


def _rehearsal(record: RehearsalRecord) -> list[str]:
    """That the trials were not rehearsed, or what the rehearsal found."""
    if record.state == "skipped":
        return ["its trials were not rehearsed (--no-rehearsal)"]
    return ["the rehearsal failed, so no trial starts:", *(f"  {text}" for text in record.mistakes)]


def _cost(status: StudyStatus, *, now: datetime) -> list[str]:
    ahead = status.forecast
    used = f"{status.gpu_hours:.2f} GPU-hours used" if status.gpu_hours else ""
    if not ahead.trials_left:
        return [used] if used else []
    if ahead.seconds is None:
        unknown = "the time left is not known: no trial has finished yet"
        return [", ".join(filter(None, [used, unknown]))]
    if ahead.seconds < 1 and ahead.trials_left:
        last = "trial has" if ahead.trials_left == 1 else f"{ahead.trials_left} trials have"
        slow = f"the last {last} run longer than the mean of the others"
        return ["; ".join(filter(None, [used, slow]))]
    rest = f"the remaining {ahead.trials_left} trials take about {length(ahead.seconds)}"
    cost = f" and {ahead.gpu_hours:.2f} GPU-hours" if ahead.gpu_hours else ""
    end = moment(datetime.fromisoformat(ahead.end), now=now) if ahead.end else ""
    until = f", until {end}" if end and status.state in ("running", "queued") else ""
    return ["; ".join(filter(None, [used, f"{rest}{cost}{until}"]))]


def _running(rows: Sequence[RunningTrial]) -> Table:
    attempts = any(row.attempt > 1 for row in rows)
    table = plain_table(("trial", "time", "host", "job", *(["attempt"] if attempts else [])))
    for row in rows[:SHOWN]:
        since = "" if row.seconds is None else length(row.seconds)
        more = [str(row.attempt)] if attempts else []
        table.add_row(str(row.number), since, row.host or "", _worker(row), *more)
    if len(rows) > SHOWN:
        table.add_row("…", f"and {len(rows) - SHOWN} more")
    return table


def _jobs(jobs: Sequence[JobView], *, now: datetime) -> Table:
    """Running jobs one by one; pending and ended ones together where all their columns are equal."""
    table = plain_table(("job", "kind", "state", "trial", "why", "start"))
    groups: dict[tuple[object, ...], list[JobView]] = {}
    for job in jobs:
        group = job.id if job.trial is not None else _array(job)
        key = (group, job.kind, job.state, job.trial, _why(job), job.estimate)
        groups.setdefault(key, []).append(job)
    order = sorted(groups.values(), key=lambda alike: (alike[0].state != "RUNNING", not alike[0].why))
    for alike in order[:SHOWN]:
        one = alike[0]
        start = _start(one, now=now)
        table.add_row(_name(alike), one.kind, one.state, number(one.trial), _why(one), start)
    if len(order) > SHOWN:
        table.add_row("…", f"and {sum(len(alike) for alike in order[SHOWN:])} more")
    return table


def _why(job: JobView) -> str:
    return job.why or (f"exit {job.exit_code}" if job.exit_code not in ("", "0:0") else "")


def _array(job: JobView) -> str:
    """The array of a pending element; empty for ended ones, which are grouped by their state alone."""
    return job.id.split("_")[0] if job.why else ""


def _name(jobs: Sequence[JobView]) -> str:
    """`7_0`, `7_0-3,5` for elements of one array, else how many jobs they are."""
    if len(jobs) == 1:
        return jobs[0].id
    arrays = {job.id.partition("_")[0] for job in jobs}
    elements = [job.id.partition("_")[2] for job in jobs]
    if len(arrays) > 1 or not all(element.isdecimal() for element in elements):
        return f"{len(jobs)} jobs"
    text = ranges(sorted({int(element) for element in elements}))
    return f"{arrays.pop()}_{text}" if len(text) <= RANGES_WIDTH else f"{len(jobs)} of {arrays.pop()}"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as Slurm writes them: `0-3,5,7-8`."""
    parts: list[list[int]] = []
    for number_ in numbers:
        if parts and number_ == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number_]
        else:
            parts.append([number_])
    return ",".join("-".join(map(str, part)) for part in parts)


def _start(job: JobView, *, now: datetime) -> str:
    try:
        return moment(datetime.fromisoformat(job.estimate), now=now) if job.estimate else ""
    except ValueError:  # Slurm's N/A
        return ""
