"""STUDY/threads.json: how many trials run side by side on this machine's processors, and the threads of each.

Written once, before the first trial (planning/thread_probe.py), and read by every later `run`: a number of threads
decides the order in which a processor adds numbers, so that it stays the same within a study.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpotune.config.json_file import optional_object

THREADS_FILE = "threads.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrangement:
    """So many trials side by side with so many threads each, and how fast they trained together."""

    trials: int
    threads: int
    tokens_per_s: float
    """Of all trials together."""

    @property
    def text(self) -> str:
        """`2 x 1 thread: 310 tokens/s`."""
        return f"{self.trials} x {_threads(self.threads)}: {self.tokens_per_s:.3g} tokens/s"


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreadChoice:
    """What was chosen, and what it was chosen from."""

    trials: int
    threads: int
    measured: tuple[Arrangement, ...]

    @property
    def text(self) -> str:
        """`2 trials side by side, 1 thread each (measured: 2 x 1 thread: 310 tokens/s, ...)`."""
        side = f"{self.trials} trials side by side" if self.trials > 1 else "one trial at a time"
        return f"{side}, {_threads(self.threads)} each (measured: {', '.join(one.text for one in self.measured)})"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def read_choice(folder: Path) -> ThreadChoice | None:
    """The choice of a study, or of the search that it follows (STUDY/repeats, STUDY/test/N); None: there is none."""
    for path in (folder, *folder.parents[:2]):
        found = optional_object(path / THREADS_FILE) if (path / THREADS_FILE).is_file() else None
        if found is None:
            continue
        try:
            measured = tuple(Arrangement(**one) for one in found["measured"])
            return ThreadChoice(trials=int(found["trials"]), threads=int(found["threads"]), measured=measured)
        except (KeyError, TypeError, ValueError):
            return None
    return None
