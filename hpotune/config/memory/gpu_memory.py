"""The memory of a GPU, by the name of its type or as the study file gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpotune.config.schema.resources import ResourcesConfig

BY_NAME: Mapping[str, int] = {
    "v100": 16, "p100": 12, "t4": 16, "l4": 24, "l40": 48, "a10": 24, "a16": 16, "a30": 24, "a40": 48, "a100": 40,
    "h100": 80, "h200": 141, "gh200": 96, "b200": 180, "a6000": 48, "a5000": 24, "a4000": 16, "rtx6000": 24,
    "rtx8000": 48, "titan": 12, "1080ti": 11, "2080ti": 11, "3080": 10, "3090": 24, "4090": 24, "5090": 32,
    "mi210": 64, "mi250": 64, "mi300x": 192,
}  # fmt: skip
"""Name in a GPU type -> gigabytes as its maker calls them; where there are several sizes, the smallest."""
SEVERAL = {"v100", "p100", "a100", "h100", "gh200", "titan", "3080"}
"""Names that GPUs of several sizes have."""
USABLE = 0.985
"""Share of its memory that a process can use: an A100 of 40 GB has 39.4 GiB."""
DECIMAL = frozenset({141, 180, 192})
"""Sizes that are 10^9 bytes; the others are GiB."""
RESERVED_GIB = 1.5
"""Beside the tensors: the CUDA context, and memory that is free in pieces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuMemory:
    """What a GPU has."""

    size: float
    """As its maker calls it: 40 for an A100 of 40 GB."""
    source: str
    """How it is known, for people."""

    @property
    def tensors_gib(self) -> float:
        """What tensors can use, GiB."""
        whole = self.size * (1e9 / 2**30 if self.size in DECIMAL else 1.0)
        return whole * USABLE - RESERVED_GIB


def gpu_memory(resources: ResourcesConfig) -> GpuMemory | None:
    """The memory of the GPUs that a study asks for; None where neither the file nor the type says it."""
    if resources.gpu_memory_gb is not None:
        return GpuMemory(size=resources.gpu_memory_gb, source="resources.gpu_memory_gb")
    kind = resources.gpu_type
    if kind is None:
        return None
    given = re.search(r"(?<![A-Za-z0-9])([0-9]{1,3})_?gi?b(?![A-Za-z])", kind, re.IGNORECASE)
    if given is not None:  # a100_80gb, h100-80gb, and the slices of MIG: 1g.10gb
        return GpuMemory(size=float(given[1]), source=f"the type {kind}")
    words = re.split(r"[^a-z0-9]+", kind.lower())
    name = next((name for name in BY_NAME if name in words or f"rtx{name}" in words), None)
    if name is None:
        return None
    number = next((int(word) for word in words if word in ("16", "32", "40", "64", "80", "96")), None)
    if number is not None:
        return GpuMemory(size=float(number), source=f"the type {kind}")
    smallest = ", the smallest of that name" if name in SEVERAL else ""
    return GpuMemory(size=float(BY_NAME[name]), source=f"the type {kind}{smallest}")
