"""`resources.gpus: auto`: the fewest GPUs of a node on which the largest trial of a study fits, by the memory estimate.

The number is written into resolved.yaml when the study is made, and never changes within it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hpotune.checks.gpus import most_gpus
from hpotune.checks.row_lengths import row_lengths
from hpotune.config.load import Study, build_study
from hpotune.config.memory.gpu_memory import gpu_memory
from hpotune.config.memory.memory_estimate import GIB, Machine
from hpotune.config.memory.model_shape import UnknownMemory
from hpotune.config.memory.point_memory import largest_point
from hpotune.config.yaml_source import Source, Value

NUMBERS = (1, 2, 4, 8)
"""GPUs of a node that are tried, in this order, as far as a node of the study's partitions has them."""


class NoGpuNumber(ValueError):
    """The number cannot be known, or none is enough; the text says what to write."""


def is_auto(values: Mapping[str, Value]) -> bool:
    """Whether the values of a study file leave the number of GPUs open."""
    resources = values.get("resources")
    gpus = resources.get("gpus") if isinstance(resources, dict) else None
    return isinstance(gpus, str) and _split(gpus)[1] == "auto"


def with_stored_number(source: Source, stored: Mapping[str, Value]) -> Source:
    """The source with the number of its study's resolved.yaml instead of auto, if that has the same type of GPU."""
    resources = stored.get("resources")
    gpus = resources.get("gpus") if isinstance(resources, dict) else None
    if not is_auto(source.values) or gpus is None or _split(str(gpus))[1] == "auto":
        return source
    kind, number = _split(str(gpus))
    return _with_number(source, int(number)) if kind == _kind(source) else source


def with_decided_number(study: Study, stored: Mapping[str, Value] | None) -> Study:
    """The study with the number that its resolved.yaml has, instead of auto. `stored`: None: there is no such file."""
    if stored is None or not is_auto(study.source.values):
        return study
    return build_study(with_stored_number(study.source, stored))


def with_gpus(study: Study) -> tuple[Study, str]:
    """The study with the fewest GPUs on which its largest trial fits, and a note that says why.

    Raises: NoGpuNumber.
    """
    config, resources = study.config, study.config.resources
    text = f"resources.gpus={resources.gpus!r}"
    if config.model is None:
        raise NoGpuNumber(
            f"{text}: the memory of a function or command is not known; write a number, such as 1"
        )
    if not config.trains:
        raise NoGpuNumber(
            f"{text}: the memory of generated answers is not estimated; write a number, such as 1"
        )
    if resources.processes is not None:
        raise NoGpuNumber(
            f"{text}: auto and processes exclude each other; write a number, or remove processes"
        )
    gpu = gpu_memory(resources)
    if gpu is None:
        rule = 'the memory of a GPU is not known; write its type, such as "a100:auto", or resources.gpu_memory_gb'
        raise NoGpuNumber(f"{text}: {rule}")
    needed, lengths, most = 0.0, row_lengths(study), most_gpus(config)
    for number in _numbers(most):
        machine = Machine(gpu=True, ranks=number * resources.nodes)
        try:
            point, found = largest_point(study, lengths, machine=machine)
        except UnknownMemory as error:
            rule = f"the memory of a trial is not known: {error}; write a number, such as 1"
            raise NoGpuNumber(f"{text}: {rule}") from None
        needed = found.estimate.peak / GIB
        if needed > gpu.tensors_gib:
            continue
        if number > 1 and "global_batch_size" not in point.train:
            rule = "and without train.global_batch_size the batch of a step would depend on that; write it, e.g. 16"
            raise NoGpuNumber(f"{text}: a trial needs {number} GPUs for its memory, {rule}")
        note = (
            f"{text} is {number}: the largest trial needs about {needed:.1f} GiB of {gpu.tensors_gib:.1f} GiB on each "
            f"({gpu.size:g} GB by {gpu.source}; rows: {lengths(point).source})"
        )
        return build_study(_with_number(study.source, number)), note
    raise NoGpuNumber(
        f"{text}: the largest trial needs {needed:.1f} GiB on each of {_numbers(most)[-1]} GPUs"
        f"{'' if most is None else ', all that a node of the partition has'}, and tensors can use "
        f"{gpu.tensors_gib:.1f} GiB ({gpu.size:g} GB by {gpu.source}); lower data.max_length or "
        "per_device_train_batch_size, or write train.activation_checkpointing: auto"
        f"{'' if most is None else ', or more resources.nodes'}"
    )


def _numbers(most: int | None) -> Sequence[int]:
    """GPUs of a node that are tried; `most`: that one has; None: not known."""
    if most is None:
        return NUMBERS
    return sorted({*(number for number in NUMBERS if number <= most), most})


def _with_number(source: Source, number: int) -> Source:
    values: dict[str, Value] = json.loads(json.dumps(source.values))
    resources, kind = values["resources"], _kind(source)
    assert isinstance(resources, dict), "auto was found in it"
    resources["gpus"] = f"{kind}:{number}" if kind else number
    return replace(source, values=values)


def _kind(source: Source) -> str:
    """The type of the GPUs; empty if the file names none."""
    resources = source.values["resources"]
    assert isinstance(resources, dict), "auto was found in it"
    return _split(str(resources["gpus"]))[0]


def _split(gpus: str) -> tuple[str, str]:
    """Type and number of `resources.gpus`."""
    kind, _, number = gpus.rpartition(":")
    return kind, number
