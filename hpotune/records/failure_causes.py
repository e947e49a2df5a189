"""The cause of a failure by the last lines of a trial's output: memory, a full disk, a broken node."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpotune.config.schema.execution import Cause

_MEMORY = (
    "out of memory",
    r"oom[- _]?kill",
    "outofmemoryerror",
    "cannot allocate memory",
    "std::bad_alloc",
)
_DISK = ("no space left on device", "disk quota exceeded")
_NODE = (
    r"\becc error",
    r"nccl(system|unhandledcuda|internal|remote)?error",
    "nccl error",
    "nvlink error",
    r"\bxid\b",
    "no cuda gpus are available",
    "no cuda-capable device",
    "cuda driver (initialization|version)",
    "cuda.*(busy or unavailable|unknown error|initialization error|unspecified launch failure|hardware)",
    "unsupported display driver",
    "fallen off the bus",
    "gpu is lost",
    r"\bbus error",
    "input/output error",
    "stale file handle",
    "transport endpoint is not connected",
)
_WORDS: tuple[tuple[Cause, tuple[str, ...]], ...] = (("oom", _MEMORY), ("store", _DISK), ("node", _NODE))
"""Of PyTorch's, NCCL's, the driver's and the kernel's messages.

Memory comes first: a rank that lacks it makes the NCCL of the others fail."""


def cause_of(lines: Sequence[str]) -> tuple[Cause, str] | None:
    """The cause that the lines name, and the last line that names it; None where they name none."""
    for cause, words in _WORDS:
        pattern = re.compile("|".join(words))
        for line in reversed(lines):
            if pattern.search(line.lower()):
                return cause, line.strip()
    return None
