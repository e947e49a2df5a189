"""The one door to the Optuna storage, and what the dead leave behind.

The store itself is imported when it is asked for: Optuna takes longer than a look at a study (quick.py) does.
"""

from typing import TYPE_CHECKING

from hpotune.storage.trials.stale import Left, Remains, alive, dead_here, results_in, silent, written

if TYPE_CHECKING:
    from hpotune.storage.trials.queue import Claim, Outcome, Store, Wait

__all__ = [
    "Claim",
    "Left",
    "Outcome",
    "Remains",
    "Store",
    "Wait",
    "alive",
    "dead_here",
    "results_in",
    "silent",
    "written",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("hpotune.storage.trials.queue"), name)
