"""The memory of a study's trials beside that of its GPUs: what `plan` shows, and what `check` warns of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpotune.checks.row_lengths import row_lengths
from hpotune.config.load import Study
from hpotune.config.memory.gpu_memory import RESERVED_GIB, GpuMemory, gpu_memory
from hpotune.config.memory.memory_estimate import GIB, Machine
from hpotune.config.memory.model_shape import UnknownMemory, read_shape
from hpotune.config.memory.point_memory import ChosenMemory, RowLengths, choose_memory, largest_point
from hpotune.config.schema.study_config import PointConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """The memory of the trials at two points, on one rank."""

    first: ChosenMemory | None
    """At the first value of every range; None: not known."""
    largest: ChosenMemory | None
    """At the point that needs the most, with the most economical settings that the file leaves open."""
    point: PointConfig | None
    """That point."""
    rows: RowLengths | None
    gpu: GpuMemory | None
    """None: the study has no GPU, or its memory is not known."""
    ranks: int
    on_gpu: bool
    unknown: str = ""
    """Why nothing is estimated; empty where it is."""

    @property
    def fits(self) -> bool | None:
        """Whether the largest point fits into a GPU; None where one of them is not known."""
        if self.largest is None or self.gpu is None:
            return None
        return self.largest.estimate.peak <= self.gpu.tensors_gib * GIB


def memory_plan(study: Study) -> MemoryPlan | None:
    """The memory of the study's trials; None for a function or a command."""
    config = study.config
    if config.model is None:
        return None
    resources = config.resources
    gpus = resources.gpus_per_node
    machine = Machine(gpu=gpus > 0, ranks=resources.nodes * resources.processes_per_node)
    gpu = gpu_memory(resources) if gpus else None
    available = gpu.tensors_gib * GIB if gpu is not None else 0.0
    base = study.base()
    plan = MemoryPlan(
        first=None, largest=None, point=None, rows=None, gpu=gpu, ranks=machine.ranks, on_gpu=machine.gpu
    )
    if not config.trains:
        return replace(
            plan, unknown="nothing is trained, and the memory of generated answers is not estimated"
        )
    lengths = row_lengths(study)
    try:
        shape = read_shape(config.model.path, revision=config.model.revision)
        first = choose_memory(base, shape, lengths(base), machine=machine, available=available)
        point, most = largest_point(study, lengths, machine=machine)
    except UnknownMemory as error:
        return replace(plan, unknown=str(error))
    return replace(plan, first=first, largest=most, point=point, rows=lengths(point))


def memory_note(plan: MemoryPlan) -> str:
    """A line on what does not fit, with what to write; empty where all fits or nothing is known."""
    if plan.fits is not False or plan.largest is None or plan.gpu is None:
        return ""
    needed = plan.largest.estimate.peak / GIB + RESERVED_GIB
    steps = ["more resources.gpus", "a smaller data.max_length or lora.r"]
    if plan.largest.micro_batch > 1:
        steps.insert(0, "train.per_device_train_batch_size: auto (with global_batch_size)")
    if not plan.largest.checkpointing:
        steps.insert(0, "train.activation_checkpointing: auto")
    return (
        f"the largest trial needs about {needed:.1f} GiB on each GPU, and a GPU has {plan.gpu.size:g} GB "
        f"({plan.gpu.source}); write {', or '.join(steps)}"
    )
