"""The status of a study for the terminal: what `status` prints, what `status --watch` keeps up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.config.schema.study_config import Json
from hpotune.report.format import length, moment, number, scored

SHOWN = 16
"""Running trials and jobs that are listed one by one."""
_STATES = ("stopped", "running", "resting", "waiting", "paused", "failed", "lost")


def status(told: Mapping[str, Json], *, now: datetime) -> RenderableType:
    """The study, its trials by state, the best so far, what runs, its jobs and why they wait, cost and forecast."""
    lines: list[RenderableType] = [Text(headline(told), style="bold")]
    lines += [Text(line) for line in sentences(told, now=now)]
    if told["running_trials"]:
        lines += [Text(""), _running(told["running_trials"])]
    if told["jobs"]:
        lines += [Text(""), _jobs(told["jobs"], now=now)]
    return Group(*lines)


def headline(told: Mapping[str, Json]) -> str:
    """`bowl: running (12 of 50 finished, 4 running, 34 waiting)`."""
    counts = told["trials"]
    parts = [f"{counts['finished']} of {counts['budget']} finished"]
    left = "not tried" if told["state"] in ("done", "stopped") else "waiting"
    parts += [f"{counts[word]} {left if word == 'waiting' else word}" for word in _STATES if counts.get(word)]
    return f"{told['study']}: {told['state']} ({', '.join(parts)})"


def best_so_far(told: Mapping[str, Json]) -> list[str]:
    """The best trials, a line each; at most three of a Pareto front."""
    lines = []
    for row in told["best"][:3]:
        values = ", ".join(
            f"{label} {scored(value, row['stderrs'].get(label))}" for label, value in row["values"].items()
        )
        lines.append(f"best so far: trial {row['number']}, {values}")
    return lines


def sentences(told: Mapping[str, Json], *, now: datetime) -> list[str]:
    """What is to be said in a line each."""
    lines = []
    if told["reason"] and told["state"] != "done":
        lines.append(f"ended because {told['reason']}")
    if told["state"] == "idle":
        lines.append(
            "trials are left and no job is there to do them: `hpotune run` or `hpotune submit` goes on"
        )
    lines += best_so_far(told)
    if told["failures"]:
        lines.append(f"failed: {counted(told['failures'])}; `hpotune why STUDY N` says why")
    if told["interrupted"]:
        lines.append(f"interrupted and put back in line: {counted(told['interrupted'])}")
    if ahead := told["outlook"]:
        lines.append(
            f"the next {ahead['ahead']} trials are expected to gain {ahead['gain']:.2g}; at most "
            f"{ahead['regret']:.2g} is left to gain (95 %, from {ahead['trials']} trials)"
        )
    lines += [f"node {host} is left out: {why}" for host, why in told["bad_nodes"].items()]
    lines += _cost(told, now=now)
    if told.get("cluster"):
        lines.append(f"the cluster is {told['cluster']}")
    elif (told.get("queue_age_s") or 0) >= 1:
        lines.append(f"jobs as the cluster told them {length(told['queue_age_s'])} ago")
    return lines


def counted(causes: Mapping[str, int]) -> str:
    """`2 x oom, 1 x nan`."""
    return ", ".join(f"{count} x {cause}" for cause, count in causes.items())


def _cost(told: Mapping[str, Json], *, now: datetime) -> list[str]:
    ahead = told["forecast"]
    used = f"{told['gpu_hours']:.2f} GPU-hours used" if told["gpu_hours"] else ""
    if not ahead["trials_left"]:
        return [used] if used else []
    if ahead["seconds"] is None:
        return [
            ", ".join(
                filter(None, [used, "how long the rest will take is not known: no trial has finished yet"])
            )
        ]
    rest = f"the rest ({ahead['trials_left']} trials) takes about {length(ahead['seconds'])}"
    more = f" and {ahead['gpu_hours']:.2f} GPU-hours" if ahead["gpu_hours"] else ""
    end = moment(datetime.fromisoformat(ahead["end"]), now=now) if ahead["end"] else ""
    until = f", until {end}" if end and told["state"] in ("running", "queued") else ""
    return ["; ".join(filter(None, [used, f"{rest}{more}{until}"]))]


def _running(rows: Sequence[Mapping[str, Json]]) -> Table:
    attempts = any(row["attempt"] > 1 for row in rows)
    table = _table("trial", "for", "on", "job", *(["attempt"] if attempts else []))
    for row in rows[:SHOWN]:
        since = "" if row["seconds"] is None else length(row["seconds"])
        more = [str(row["attempt"])] if attempts else []
        table.add_row(str(row["number"]), since, row["host"] or "", row["job"] or "", *more)
    if len(rows) > SHOWN:
        table.add_row("…", f"and {len(rows) - SHOWN} more")
    return table


def _jobs(jobs: Sequence[Mapping[str, Json]], *, now: datetime) -> Table:
    """Jobs that run one by one; those that wait, and those that have ended, together where they are alike."""
    table = _table("job", "what", "state", "trial", "why", "starts")
    groups: dict[tuple[Json, ...], list[Mapping[str, Json]]] = {}
    for job in jobs:
        alone = job["trial"] is not None
        why = _why(job)
        key = (
            job["id"] if alone else _array(job),
            job["kind"],
            job["state"],
            job["trial"],
            why,
            job["estimate"],
        )
        groups.setdefault(key, []).append(job)
    order = sorted(groups.items(), key=lambda one: (one[0][2] != "RUNNING", not one[1][0]["why"]))
    for (_, kind, state, trial, why, estimate), alike in order[:SHOWN]:
        starts = moment(datetime.fromisoformat(estimate), now=now) if _is_time(estimate) else ""
        table.add_row(_name(alike), kind, state, number(trial), why, starts)
    if len(order) > SHOWN:
        table.add_row("…", f"and {sum(len(alike) for _, alike in order[SHOWN:])} more")
    return table


def _why(job: Mapping[str, Json]) -> str:
    if job["why"]:
        return str(job["why"])
    return f"exit {job['exit_code']}" if job["exit_code"] not in ("", "0:0") else ""


def _array(job: Mapping[str, Json]) -> str:
    """The array of an element that waits; nothing in common for those that have ended but their state."""
    return str(job["id"]).split("_")[0] if job["why"] else ""


def _name(jobs: Sequence[Mapping[str, Json]]) -> str:
    first, last = jobs[0]["id"], jobs[-1]["id"]
    if len(jobs) == 1:
        return str(first)
    same = str(first).split("_")[0] == str(last).split("_")[0] and "_" in str(last)
    return f"{first}-{str(last).split('_')[1]}" if same else f"{len(jobs)} jobs"


def _is_time(text: Json) -> bool:
    try:
        return bool(text) and bool(datetime.fromisoformat(str(text)))
    except ValueError:
        return False


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
