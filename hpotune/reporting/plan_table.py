"""A plan for the terminal: what would be submitted, the modes side by side, the study file's mode as a gantt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.config.yaml_source import Value
from hpotune.planning.estimate import MEANINGS
from hpotune.records.trial import Span
from hpotune.reporting.console import plain_table
from hpotune.reporting.format import length
from hpotune.reporting.gantt import text
from hpotune.reporting.views.plan_view import ArrayView, MemoryView, ModeView, PlanView


def plan_table(plan: PlanView, spans: Sequence[Span]) -> RenderableType:
    """The plan; `spans` are those of the study file's mode. Below them the recorded plan beside what was measured."""
    own = plan.own
    lines: list[RenderableType] = [Text(_headline(plan), style="bold")]
    lines += [Text(note, style="yellow") for note in plan.notes]
    lines += [Text(""), _figures(plan), Text(""), *(Text(_array(array)) for array in plan.jobs)]
    if plan.processes:
        lines.append(Text(f"trial processes: {plan.processes}"))
    if plan.threads:
        lines.append(Text(f"threads: {plan.threads}"))
    if plan.memory is not None:
        lines += _memory(plan.memory)
    if plan.race:
        lines.append(Text(f"scoring: {plan.race}"))
    if plan.no_slurm:
        lines.append(Text(plan.no_slurm))
    if plan.sbatch:
        lines += [Text(""), Text("script of the first job:", style="bold"), Text(plan.sbatch.rstrip())]
    lines += [Text(""), _modes(plan), Text(_recommended(plan))]
    title = f"the study file's mode ({own.mode}, trials_per_job: {own.trials_per_job}):"
    lines += [Text(""), Text(title, style="bold"), Text(text(spans), no_wrap=True)]
    if plan.planned or plan.actual:
        lines += [Text(""), _planned_and_actual(plan.planned or {}, plan.actual or {})]
    return Group(*lines)


def _headline(plan: PlanView) -> str:
    own = plan.own
    cost = f"{own.gpu_hours:.2f} GPU-hours" if own.gpu_hours else f"{own.job_hours:.2f} job-hours"
    short = (
        ""
        if own.trials == plan.trials
        else f"; only {own.trials} of them finish: {own.reason or 'no job runs the rest'}"
    )
    jobs = f"{own.jobs} job{'s' if own.jobs != 1 else ''}"
    again = ""
    if (repeats := plan.repeats) is not None:
        more = (
            f"{repeats.gpu_hours:.2f} GPU-hours"
            if repeats.gpu_hours
            else f"{repeats.job_hours:.2f} job-hours"
        )
        again = f"; then {repeats.trials} repeats of the finalists in about {length(repeats.wall_s)}, {more}"
    return f"{plan.study}: {plan.trials} trials in about {length(own.wall_s)}, {cost}, {jobs}{short}{again}"


def _figures(plan: PlanView) -> Table:
    table = plain_table(("time", "seconds", "meaning", "source"), fold=False)
    for name, meaning in MEANINGS.items():
        if (figure := plan.figures.get(name)) is not None:
            table.add_row(name, f"{figure.value:.1f}", meaning, figure.source)
    return table


def _memory(memory: MemoryView) -> list[RenderableType]:
    """The estimated memory of a trial at two points, and that of a GPU."""
    if memory.largest is None or memory.first is None:
        return [Text(f"memory of a trial: not estimated: {memory.unknown}")]
    parts = ("peak", "weights", "adapter", "optimizer", "gradients", "activations", "logits", "scoring")
    table = plain_table(("memory, GiB", *parts, "micro-batch", "checkpointing"), right=parts, fold=False)
    for name, point in (("first values", memory.first), ("largest values", memory.largest)):
        numbers = (f"{getattr(point, part):.2f}" for part in parts)
        table.add_row(name, *numbers, str(point.micro_batch), "yes" if point.checkpointing else "no")
    each = f" on each of {memory.ranks} ranks" if memory.ranks > 1 else ""
    has = "the memory of the GPU is not known; write its type, or resources.gpu_memory_gb"
    if memory.gpu_tensors is not None:
        word = "fits" if memory.fits else "does not fit"
        has = f"{word} into {memory.gpu_tensors:.1f} GiB of {memory.gpu_gb:g} GB ({memory.gpu_source})"
    elif not memory.on_gpu:
        has = "the study asks for no GPU"
    chunk = memory.largest.loss_chunk
    note = f"; the loss is computed in chunks of {chunk} positions (train.chunked_loss)" if chunk else ""
    return [Text(""), table, Text(f"estimated{each} from {memory.rows}; {has}{note}")]


def _array(array: ArrayView) -> str:
    each = array.trials_per_job
    trials = "trials until the study is over" if each is None else f"{each} trial{'s' if each > 1 else ''}"
    return f"submits an array of {array.count} jobs, {array.throttle} at a time; each runs {trials}"


def _modes(plan: PlanView) -> Table:
    gpus = any(mode.gpu_hours for mode in plan.modes)
    cost = "GPU-hours" if gpus else "job-hours"
    numbers = ("trials per job", "wall time", cost, "jobs", "idle", "trials")
    table = plain_table(("mode", *numbers, ""), right=numbers, fold=False)
    for mode in plan.modes:
        marks = [word for word, true in (("study file", mode.own), ("recommended", mode.recommended)) if true]
        table.add_row(*_cells(mode, gpus=gpus), ", ".join(marks))
    return table


def _cells(mode: ModeView, *, gpus: bool) -> tuple[str, ...]:
    return (
        mode.mode,
        str(mode.trials_per_job),
        length(mode.wall_s),
        f"{mode.gpu_hours if gpus else mode.job_hours:.2f}",
        str(mode.jobs),
        f"{mode.idle:.0%}",
        str(mode.trials),
    )


def _recommended(plan: PlanView) -> str:
    chosen = plan.recommended
    line = f"execution: {{mode: {chosen.mode}, trials_per_job: {chosen.trials_per_job}}}"
    return f"recommended: {line}: {chosen.reason}"


COMPARED = (
    ("wall_s", "wall time"),
    ("gpu_hours", "GPU-hours"),
    ("job_hours", "job-hours"),
    ("trials", "trials"),
    ("trials_per_hour", "trials per hour"),
    ("queue_s", "time in the queue"),
    ("jobs", "jobs"),
)
"""Key of plan.json -> what it is: the numbers that are shown as planned and as measured."""


def _planned_and_actual(planned: Mapping[str, Value], actual: Mapping[str, Value]) -> Table:
    """The recorded plan and what was measured so far."""
    numbers = ("planned", f"actual ({actual.get('state', 'not started')})")
    table = plain_table(("", *numbers), right=numbers, fold=False)
    for key, label in COMPARED:
        if key == "gpu_hours" and not (planned.get(key) or actual.get(key)):
            continue
        table.add_row(label, quantity(key, planned.get(key)), quantity(key, actual.get(key)))
    return table


def quantity(key: str, value: Value) -> str:
    """A number of a plan by its key, as text; `-` where there is none."""
    if not isinstance(value, (int, float)):
        return "-"
    return length(value) if key.endswith("_s") else f"{value:g}"
