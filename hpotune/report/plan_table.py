"""A plan in numbers for `--json`, and drawn for the terminal from the same mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.config.schema.study_config import Json
from hpotune.planning.estimate import MEANS
from hpotune.records.trial import Span
from hpotune.report.format import length
from hpotune.report.gantt import text


def plan(told: Mapping[str, Json], spans: Sequence[Span]) -> RenderableType:
    """What would be submitted and why so, the ways side by side, the gantt of the study's own; then what came of it."""
    own = next(way for way in told["modes"] if way["own"])
    lines: list[RenderableType] = [Text(_headline(told, own), style="bold")]
    lines += [Text(note, style="yellow") for note in told["notes"]]
    lines += [Text(""), _figures(told["figures"]), Text(""), *map(Text, _jobs(told["jobs"]))]
    if told["no_slurm"]:
        lines.append(Text(told["no_slurm"]))
    if told["sbatch"]:
        lines += [Text(""), Text("the first job:", style="bold"), Text(told["sbatch"].rstrip())]
    lines += [Text(""), _ways(told), Text(_recommended(told))]
    lines += [
        Text(""),
        Text(f"as the study file says ({_name(own)}):", style="bold"),
        Text(text(spans), no_wrap=True),
    ]
    if told["planned"] or told["actual"]:
        lines += [Text(""), _beside(told["planned"] or {}, told["actual"] or {})]
    return Group(*lines)


def _headline(told: Mapping[str, Json], own: Mapping[str, Json]) -> str:
    cost = (
        f"{own['gpu_hours']:.2f} GPU-hours" if own["gpu_hours"] else f"{own['job_hours']:.2f} hours of jobs"
    )
    short = (
        ""
        if own["trials"] == told["trials"]
        else f"; only {own['trials']} of them end: {own['reason'] or 'no job does the rest'}"
    )
    comes_to = f"{length(own['wall_s'])}, {cost}, {own['jobs']} jobs{short}"
    return f"{told['study']}: {told['trials']} trials in about {comes_to}"


def _figures(figures: Mapping[str, Json]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("figure", "seconds", "what it is", "where it is from"):
        table.add_column(column)
    for name, figure in figures.items():
        table.add_row(name, f"{figure['value']:.1f}", MEANS[name], figure["source"])  # type: ignore[index]
    return table


def _jobs(arrays: Sequence[Mapping[str, Json]]) -> list[str]:
    lines = []
    for array in arrays:
        each = array["trials_per_job"]
        takes = "trials until the end" if each is None else f"{each} trial{'s' if each > 1 else ''}"
        lines.append(
            f"submits an array of {array['count']}, {array['throttle']} at a time, each takes {takes}"
        )
    return lines


def _name(way: Mapping[str, Json]) -> str:
    each = way["trials_per_job"]
    return f"{way['mode']}, trials_per_job: {each}"


def _ways(told: Mapping[str, Json]) -> Table:
    gpus = any(way["gpu_hours"] for way in told["modes"])
    table = Table(box=None, pad_edge=False, header_style="bold")
    cost = "GPU-hours" if gpus else "job-hours"
    for column in ("mode", "trials per job", "wall time", cost, "jobs", "idle", "trials", ""):
        table.add_column(column, justify="left" if column in ("mode", "") else "right")
    for way in told["modes"]:
        marks = [
            word for word, true in (("study file", way["own"]), ("recommended", way["recommended"])) if true
        ]
        table.add_row(
            way["mode"],
            str(way["trials_per_job"]),
            length(way["wall_s"]),
            f"{way['gpu_hours' if gpus else 'job_hours']:.2f}",
            str(way["jobs"]),
            f"{way['idle']:.0%}",
            str(way["trials"]),
            ", ".join(marks),
        )
    return table


def _recommended(told: Mapping[str, Json]) -> str:
    chosen = told["recommended"]
    line = f"execution: {{mode: {chosen['mode']}, trials_per_job: {chosen['trials_per_job']}}}"
    return f"recommended: {line}: {chosen['reason']}"


_BESIDE = (
    ("wall_s", "wall time"),
    ("gpu_hours", "GPU-hours"),
    ("job_hours", "hours of jobs"),
    ("trials", "trials"),
    ("trials_per_hour", "trials per hour"),
    ("queue_s", "wait in the queue"),
    ("jobs", "jobs"),
)


def _beside(planned: Mapping[str, Json], actual: Mapping[str, Json]) -> Table:
    """The recorded plan and what came of it so far."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("planned", justify="right")
    table.add_column(f"actual ({actual.get('state', 'not started')})", justify="right")
    for key, label in _BESIDE:
        if key == "gpu_hours" and not (planned.get(key) or actual.get(key)):
            continue
        table.add_row(label, _cell(key, planned.get(key)), _cell(key, actual.get(key)))
    return table


def _cell(key: str, value: Json) -> str:
    if value is None:
        return "-"
    return length(value) if key.endswith("_s") else f"{value:g}"
