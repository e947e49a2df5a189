"""What a fault is, whom it may strike, and the processes of its victims."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import Testbed, parent_of

from hpotune.records.trial import TrialRow


@dataclass(kw_only=True)
class Fault:
    """One that struck, and all that is known of it."""

    kind: str
    at: float
    """Unix seconds at which it struck."""
    until: float = 0.0
    """When what it does was over."""
    trial: int | None = None
    job: str | None = None
    node: str | None = None
    """Whom it struck: all that are not None; none of them: everybody."""
    note: str = ""
    struck: bool = True
    """False where nobody was there to be struck; then it comes again later."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of fault."""

    share: int
    """How many of sixty."""
    causes: frozenset[str]
    """What may stand in the store of an attempt that it ended; `paused`: it was asked to end and did."""
    strike: Callable[[Testbed, Fault, random.Random, Sequence[TrialRow]], None]
    slow_s: float = 15.0
    """How long after it a victim may end of it: a wait for Slurm, or for somebody to see the death."""


def causes(*words: str) -> frozenset[str]:
    return frozenset(words)


def pick(fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> TrialRow | None:
    """A running trial, now the fault's target; None, and the fault strikes nobody, where none runs."""
    row = rng.choice(running) if running else None
    fault.struck = row is not None
    if row and row.worker:
        fault.trial, fault.job, fault.node = row.number, row.worker.job, row.worker.host
    return row


def trial_processes(row: TrialRow) -> list[int]:
    """Processes of a trial's attempt: the one that started the ranks, and the ranks; or the process kept for it."""
    assert row.worker is not None, "it runs"
    parents = {int(path.name): safe_parent(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found, seen = [], {row.worker.pid}
    while children := [pid for pid, parent in parents.items() if parent in seen and pid not in seen]:
        seen |= {*children}
        found += [
            pid
            for pid in children
            if {b"chaos/trial.py", b"hpotune.finetune"} & {*programs(command_line(pid))}
        ]
    return found


def programs(command: bytes) -> list[bytes]:
    """What a command line runs: the ends of its words that name a file, and its words."""
    words = command.split(b"\0")
    return [*words, *(b"/".join(word.split(b"/")[-2:]) for word in words)]


def command_line(pid: int) -> bytes:
    """A process's command line; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def safe_parent(pid: int) -> int:
    """A process's parent; 0 where it is gone."""
    try:
        return parent_of(pid)
    except OSError:
        return 0
