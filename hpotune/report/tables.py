"""Tables and sentences for the terminal, drawn from summary.py's mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.study.config import Json

WAITING = {
    "Priority": "others are before it",
    "Resources": "waits for nodes to be free",
    "Dependency": "starts when other jobs have ended",
    "JobArrayTaskLimit": "as many as budget.parallel allows are running",
    "QOSMaxJobsPerUserLimit": "your QOS allows no more jobs at a time",
    "AssocGrpBillingRunMinutes": "your account's running jobs hold all its minutes",
    "AssocMaxJobsLimit": "your account allows no more jobs at a time",
    "ReqNodeNotAvail": "nodes it needs are down or reserved",
    "PartitionTimeLimit": "resources.time is above the partition's limit",
    "PartitionDown": "the partition is down",
    "BeginTime": "was requeued and waits a moment",
}
"""Slurm's reasons for waiting, in words."""


def number(value: Json) -> str:
    """A value short enough for a column."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def scored(value: Json, stderr: Json) -> str:
    """`0.512 ± 0.031`."""
    return f"{number(value)} ± {stderr:.2g}" if isinstance(stderr, float) else number(value)


def trials(rows: Sequence[Mapping[str, Json]]) -> RenderableType:
    """One line a trial: number, state, values, parameters, time, why it failed."""
    labels = list(dict.fromkeys(label for row in rows for label in row["values"]))
    names = list(dict.fromkeys(name for row in rows for name in row["params"]))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("trial", "state", *labels, *names, "min", "why"):
        table.add_column(column, overflow="fold")
    for row in rows:
        values = [scored(row["values"].get(label), row["stderrs"].get(label)) for label in labels]
        minutes = (row["end"] - row["start"]) / 60 if row["end"] and row["start"] else None
        why = f"{row['failure']['cause']}: {row['failure']['message']}" if row["failure"] else ""
        state = "baseline" if row["kind"] == "baseline" and row["state"] == "finished" else row["state"]
        params = [number(row["params"].get(name)) for name in names]
        table.add_row(str(row["number"]), state, *values, *params, number(minutes and round(minutes, 2)), why)
    return table


def status(told: Mapping[str, Json]) -> RenderableType:
    """The study, its trials by state, the best so far, its jobs and why they wait."""
    counts = told["trials"]
    parts = [f"{counts['finished']} of {counts['budget']} finished"]
    parts += [f"{counts[word]} {word}" for word in ("running", "failed", "lost") if counts[word]]
    lines: list[RenderableType] = [
        Text(f"{told['study']}: {told['state']} ({', '.join(parts)})", style="bold")
    ]
    if told["reason"] and told["state"] != "done":
        lines.append(Text(f"ended because {told['reason']}"))
    if told["state"] == "idle":
        lines.append(
            Text("trials are left and no job is there to do them: `hpotune run` or `hpotune submit` goes on")
        )
    for row in told["best"][:3]:
        values = ", ".join(
            f"{label} {scored(value, row['stderrs'].get(label))}" for label, value in row["values"].items()
        )
        lines.append(Text(f"best so far: trial {row['number']}, {values}"))
    if told["failures"]:
        lines.append(
            Text("failed: " + ", ".join(f"{count} x {cause}" for cause, count in told["failures"].items()))
        )
    if told["gpu_hours"]:
        lines.append(Text(f"{told['gpu_hours']:.2f} GPU-hours used"))
    if told["jobs"]:
        lines.append(_jobs(told["jobs"]))
    return Group(*lines)


def _jobs(jobs: Sequence[Mapping[str, Json]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("job", "what", "state", "trial", "why"):
        table.add_column(column)
    for job in jobs:
        exit_code = f"exit {job['exit_code']}" if job["exit_code"] not in ("", "0:0") else ""
        why = WAITING.get(job["reason"], job["reason"]) if job["state"] == "PENDING" else exit_code
        table.add_row(job["id"], job["kind"], job["state"], number(job["trial"]), why)
    return table


def best(told: Mapping[str, Json]) -> RenderableType:
    """The best setting, its gain over the untouched model, what it cannot be told from, where its files are."""
    row = told["best"]
    if row is None:
        return Text(f"{told['study']}: no trial has finished yet")
    lines = [Text(f"best of {told['finished']} trials: trial {row['number']}", style="bold")]
    for label, value in row["values"].items():
        lines.append(Text(f"  {label:<28} {scored(value, row['stderrs'].get(label))}"))
    lines += [Text(f"  {name:<28} {number(value)}") for name, value in row["params"].items()]
    if told["tuned_model"]:
        lines.append(Text(verdict(told)))
    if told["tied"]:
        lines.append(
            Text(
                f"cannot be told from trial {', '.join(map(str, told['tied']))}: the difference is within the error"
            )
        )
    if told["front"]:
        lines.append(Text(f"Pareto front: trials {', '.join(str(one['number']) for one in told['front'])}"))
    lines.append(Text(f"files: {told['adapter'] or told['folder']}"))
    return Group(*lines)


def verdict(told: Mapping[str, Json]) -> str:
    """Whether the best beats the baseline by more than the error allows, in one sentence."""
    gain, baseline = told["gain"], told["baseline"]
    if gain is None:
        return "no baseline was scored: nothing says whether tuning helped"
    label = told["objectives"][0]["label"]
    base = scored(baseline["values"].get(label), baseline["stderrs"].get(label))
    error = (
        f" ± {gain['stderr']:.2g}{' (paired)' if gain['paired'] else ''}"
        if gain["stderr"] is not None
        else ""
    )
    if gain["sure"] is None:
        better = "better" if gain["value"] > 0 else "worse"
        by = number(abs(gain["value"]))
        return (
            f"{better} than the untouched base model ({base}) by {by}; the error of this metric is not known"
        )
    if gain["sure"]:
        return f"beats the untouched base model ({base}) by {number(gain['value'])}{error}: more than the error allows"
    gained = f"{number(gain['value'])}{error}"
    return f"does NOT beat the untouched base model ({base}) by more than the error allows: {gained}"


def doctor(findings: Sequence[Mapping[str, Json]]) -> RenderableType:
    """One line a finding, what to change beside it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found", "change"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(finding["level"], finding["what"], finding["found"], finding["change"])
    return table
