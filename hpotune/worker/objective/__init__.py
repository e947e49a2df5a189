"""How a trial gets its value: three objectives behind one function, `evaluate(specs) -> results`, in other processes.

finetune starts the ranks of `python -m hpotune.finetune`; function and command run what the user wrote. None of that is
imported here. A new objective is a file with an `open_...` function and one line in `open_objective`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from hpotune.worker.objective.command import open_command
from hpotune.worker.objective.finetune import open_finetune
from hpotune.worker.objective.function import open_function
from hpotune.worker.objective.interface import Evaluate, TrialContext


def open_objective(context: TrialContext) -> AbstractContextManager[Evaluate]:
    """The objective that the study names: a function, a command, or the built-in fine-tuning."""
    if context.config.python:
        return open_function(context)
    return open_command(context) if context.config.command else open_finetune(context)
