"""Which objective a study names. A new one is a file with an `open_…` and one line here."""

from __future__ import annotations

from contextlib import AbstractContextManager

from hpotune.objective.command import open_command
from hpotune.objective.finetune import open_finetune
from hpotune.objective.function import open_function
from hpotune.objective.interface import Evaluate, Setting


def open_objective(setting: Setting) -> AbstractContextManager[Evaluate]:
    """The objective that the study names."""
    if setting.config.python:
        return open_function(setting)
    return open_command(setting) if setting.config.command else open_finetune(setting)
