"""The status of a study for the terminal: what `status` prints and `status --watch` keeps up to date."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.config.text.outside_text import console_text
from hpotune.records.rehearsal_record import RehearsalRecord
from hpotune.reporting.advice import stop_advice
from hpotune.reporting.console import plain_table
from hpotune.reporting.format import counts, length, moment, number, score, state_text
from hpotune.reporting.progress.trial_progress import TrialProgress, unit_of
from hpotune.reporting.views.status import JobView, RunningTrial, StudyStatus
from hpotune.reporting.views.trial_view import scored

SHOWN = 16
"""Running trials and jobs that are listed one by one."""
SHOWN_OF_FRONT = 3
"""Trials of a Pareto front that are listed."""
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
    if status.repeats is not None:
        lines += [Text(""), status_table(status.repeats, now=now)]
    if status.opening is not None and status.opening_runs and status.opening.state != "idle":
        lines += [Text(""), status_table(status.opening, now=now)]
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
    also = f", sealed test {status.opening.state}" if status.opening and status.opening_runs else ""
    return f"{status.study}: {status.state}{also} ({', '.join(parts)})"


def best_so_far(status: StudyStatus) -> list[str]:
    """The best trial, a line; of a Pareto front at most three, best by the first objective first."""
    rule, count = status.rule, len(status.best)
    lines = []
    if rule is not None and not status.best and status.trials.finished > 1:
        lines.append(f"best so far: none; no trial satisfies the rule: {rule.text}")
    for row in status.best[:SHOWN_OF_FRONT]:
        labels = list(dict.fromkeys([*row.values, *([rule.metric] if rule else [])]))
        values = ", ".join(f"{label} {score(*scored(row, label))}" for label in labels)
        note = " (± standard error)" if any(error is not None for error in row.stderrs.values()) else ""
        name = f"Pareto front, {count} trials" if count > 1 else "best so far"
        by = f" by the rule ({rule.text})" if rule else ""
        lines.append(f"{name}{by}: trial {row.number}, {values}{note}")
    if count > SHOWN_OF_FRONT:
        lines.append(f"and {count - SHOWN_OF_FRONT} more of the Pareto front; `hpotune best` lists them")
    return lines


def sentences(status: StudyStatus, *, now: datetime) -> list[str]:
    """Everything but the tables, a line each."""
    lines = []
    if status.stop and status.state != "done":
        lines.append(f"stopped: {status.stop.text}")
    if status.opening is not None:
        lines.append(_opening(status.opening, status))
    elif status.stop and status.state == "stopped":
        lines.append(f"next: {stop_advice(status.stop, status.folder)}")
    if status.state == "idle":
        lines.append("trials are left, but no job runs or can start: continue with `hpotune resume`")
    if status.held:
        lines.append(_held(status))
    if status.repeats_wanted and status.repeats is None:
        lines.append(_repeats(status))
    if status.state in ("cancelling", "cancelled"):
        wait = "its jobs are ending; " if status.state == "cancelling" else ""
        by = status.cancelled_by or "`hpotune cancel`"
        lines.append(f"cancelled by {by}: {wait}`hpotune resume {status.folder}` continues it")
    lines += _silent(status.running_trials)
    if status.rehearsal is not None and status.rehearsal.state != "passed":
        lines += _rehearsal(status.rehearsal)
    lines += best_so_far(status)
    if raced := status.trials.raced:
        lines.append(f"{raced} of the pruned trials ended while they were scored: their scores are estimates")
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
        lines.append(f"cluster: {status.cluster}")
    elif (status.queue_age_s or 0) >= 1:
        lines.append(f"job states are {length(status.queue_age_s or 0)} old")
    return [*lines, *(f"cluster: {text}" for text in status.missing or ())]


def _repeats(status: StudyStatus) -> str:
    """That the finalists are trained again after the search, and what starts that where nothing does by itself."""
    line = f"after the search each finalist is trained again with {status.repeats_wanted} new seeds"
    if status.stop is None or status.stop.is_failure or status.running_trials:
        return line
    if any(job.active for job in status.jobs):
        return f"{line}; the jobs that are left start that"
    return f"{line}: `hpotune resume {status.folder}` starts that"


def _opening(opening: StudyStatus, status: StudyStatus) -> str:
    """That the sealed test runs, waits for somebody or has ended, and what goes on with it."""
    test = f"`hpotune test {status.folder}`"
    if not status.opening_runs:
        return f"the sealed test has been opened: {test} shows the result"
    if opening.state == "idle":
        return f"the sealed test has been opened, and no job of it runs: {test} continues it"
    return f"the sealed test is {opening.state}: {test} shows the result once it has ended"


def _held(status: StudyStatus) -> str:
    """That Slurm holds jobs, what replaces them, and what starts them again."""
    which = ", ".join(status.held[:SHOWN]) + (" …" if len(status.held) > SHOWN else "")
    return (
        f"Slurm holds job {which} after failed launches (see `sinfo -R` for the node): the next follow-up replaces it, "
        f"or `hpotune resume {status.folder}` does so now; `scontrol release JOB` starts it instead"
    )


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
    attempts, phases = any(row.attempt > 1 for row in rows), any(row.progress for row in rows)
    columns = [*(["attempt"] if attempts else []), *(["phase", "phase ends in"] if phases else [])]
    table = plain_table(("trial", "time", "host", "job", *columns))
    for row in rows[:SHOWN]:
        since = "" if row.seconds is None else length(row.seconds)
        more = [str(row.attempt)] if attempts else []
        more += [*progress_cells(row.progress)] if phases else []
        table.add_row(str(row.number), since, row.host or "", _worker(row), *more)
    if len(rows) > SHOWN:
        table.add_row("…", f"and {len(rows) - SHOWN} more")
    return table


def progress_cells(progress: TrialProgress | None) -> tuple[str, str]:
    """The phase of a running trial with its steps, `training, step 40 of 80`, and how long the phase still takes."""
    if progress is None:
        return "", ""
    reported = ", ".join(f"{label} {number(value)}" for label, value in progress.reported.items())
    steps = f"{unit_of(progress)} {progress.step} of {progress.steps}" if progress.steps else ""
    text = ", ".join(filter(None, [progress.text, steps, f"last reported {reported}" if reported else ""]))
    return console_text(text, one_line=True), "" if progress.left_s is None else length(progress.left_s)


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
