"""The cause of a failure by what a program printed or raised: memory, a full disk, a broken node."""

from __future__ import annotations

import errno
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


_KILLED_RANK = re.compile(r"\bSignal (\d+) \((SIG\w+)\) received by PID \d+")
"""torchrun's words for a rank that was killed; it ends with exit code 1 itself."""


FULL_DISK_EXIT = 74
"""Exit code (EX_IOERR) of a trial's process that could not even write its failure, since the disk was full."""
_OF_ERRNO: dict[int, Cause] = {
    errno.ENOMEM: "oom",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS), "store"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN), "node"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "user"),
}
"""System errors by who must act: the administrator of the disk, of the node, or the owner of a file's permissions."""
_QUOTING = (LookupError, ValueError, TypeError, AttributeError, AssertionError, ImportError, NameError)
"""Exceptions whose text quotes names and data, in which a word such as `xid` says nothing."""


def cause_of_error(error: BaseException) -> Cause | None:
    """The cause that a single exception names; None where it names none."""
    if isinstance(error, MemoryError):
        return "oom"
    if isinstance(error, OSError) and error.errno in _OF_ERRNO:
        return _OF_ERRNO[error.errno]
    if isinstance(error, _QUOTING):
        return None
    named = cause_of([f"{type(error).__name__}: {error}".replace("\n", " ")])
    return named[0] if named else None


def killed_rank(lines: Sequence[str]) -> str | None:
    """The signal that killed a rank, as torchrun reports it; None where it reports none."""
    found = [match for line in lines if (match := _KILLED_RANK.search(line))]
    return found[0][2] if found else None


_DIRECT = "The above exception was the direct cause of the following exception:"


def hidden_reason(lines: Sequence[str]) -> str:
    """The exception that the last traceback's exceptions hide (`raise … from`), as Python prints it; else empty."""
    starts = [index for index, line in enumerate(lines) if line.startswith("During handling of the above")]
    last = lines[starts[-1] + 1 :] if starts else lines
    links = [index for index, line in enumerate(last) if line.startswith(_DIRECT)]
    before = [line for line in last[: links[0]] if line and not line[0].isspace()] if links else []
    return before[-1] if before else ""


def cause_of(lines: Sequence[str]) -> tuple[Cause, str] | None:
    """The cause that the lines name, and the last line that names it; None where they name none."""
    for cause, words in _WORDS:
        pattern = re.compile("|".join(words))
        for line in reversed(lines):
            if pattern.search(line.lower()):
                return cause, line.strip()
    return None
