"""Processes of a trial without the processes: each one reads an environment of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.api.in_trial.stop_signal import SIGNALS
from hpotune.api.in_trial.trial_process import TrialProcess, this_trial
from hpotune.workspace.trial_reports import forget_stop


@pytest.fixture
def trial_of(tmp_path: Path) -> Callable[..., TrialProcess]:
    """Makes a process of a trial, with variables."""
    forget_stop(tmp_path)

    def made(**env: str) -> TrialProcess:
        return TrialProcess(folder=tmp_path, env={"HPOTUNE_ATTEMPT": "a", **env})

    return made


@pytest.fixture
def as_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this process the trial's, as its worker would start it; again: as a new attempt."""

    def start(attempt: str = "a", **env: str) -> None:
        for key, value in {"TRIAL_DIR": str(tmp_path), "ATTEMPT": attempt, "PARAMS": "{}", **env}.items():
            monkeypatch.setenv(f"HPOTUNE_{key}", value)
        forget_stop(tmp_path)
        this_trial.cache_clear()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield start
    this_trial.cache_clear()
    for number, handler in before.items():
        signal.signal(number, handler)


def lines(file: Path) -> list[dict]:
    """The lines of a file of JSON lines."""
    return [json.loads(line) for line in file.read_text().splitlines()]
