"""The only way to a study's trials: open a storage (backends/), read it (readers/), work on its trial queue (trials/).

The queue is imported when it is asked for: importing Optuna takes longer than `hpotune status`, which uses readers/.
"""

from typing import TYPE_CHECKING

from hpotune.storage.trials.stale import (
    OutputReader,
    TrialOutput,
    UnchangedHeartbeats,
    is_worker_process,
    lease_expired,
    newest_write,
    output_reader,
    requeue_lock,
    stale_on_host,
)

if TYPE_CHECKING:
    from hpotune.storage.trials.queue import Claim, TrialQueue, Wait

__all__ = [
    "Claim",
    "OutputReader",
    "TrialOutput",
    "TrialQueue",
    "UnchangedHeartbeats",
    "Wait",
    "is_worker_process",
    "lease_expired",
    "newest_write",
    "output_reader",
    "requeue_lock",
    "stale_on_host",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("hpotune.storage.trials.queue"), name)
