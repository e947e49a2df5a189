"""How a trial gets its value: three objectives behind one function, `evaluate(specs) -> results`, in other processes.

finetune starts the ranks of `python -m hpotune.finetune`; function and command run what the user wrote. None of that is
imported here. A new objective is a file with an `open_...` function and one line in `open_objective`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpotune.worker.objective.interface import Evaluate, TrialContext


def open_objective(context: TrialContext) -> AbstractContextManager[Evaluate]:
    """The objective that the study names: a function, a command, or the built-in fine-tuning."""
    # Imported here: function_process.py, which runs once a trial, needs none of the three.
    if context.config.python:
        from hpotune.worker.objective.function import open_function

        return open_function(context)
    if context.config.command:
        from hpotune.worker.objective.command import open_command

        return open_command(context)
    from hpotune.worker.objective.finetune import open_finetune

    return open_finetune(context)
