"""The process that a worker starts before it has a trial: it runs the first one, or ends and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from hpotune.records.trial import TrialSpec
from hpotune.worker.objective import warm_process
from hpotune.worker.objective.process import PAUSE_SIGNAL, StopRequest
from tests.finetune.warm.conftest import process_of, worker
from tests.fixtures.tiny_trials import run_here


def ranks_made(monkeypatch: pytest.MonkeyPatch) -> list:
    """The processes that workers start from now on."""
    made, start = [], warm_process.subprocess.Popen

    def started(*args: object, **options: object) -> object:
        made.append(start(*args, **options))
        return made[-1]

    monkeypatch.setattr(warm_process.subprocess, "Popen", started)
    return made


@pytest.mark.parametrize("stopped", [None, PAUSE_SIGNAL])
def test_unneeded_process_is_ended(monkeypatch: pytest.MonkeyPatch, stopped: int | None) -> None:
    made, stop = ranks_made(monkeypatch), StopRequest()
    with worker(stop=stop):
        if stopped is not None:
            stop.request(stopped)
    assert [one.returncode for one in made] == [-signal.SIGTERM]


def test_lost_early_process_costs_nothing(
    trial: Callable[..., TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ranks_made(monkeypatch)
    with worker() as run:
        os.kill(made[0].pid, signal.SIGKILL)
        assert run(trial(1)).state == "finished"
    assert len(made) == 2


def test_early_process_runs_first_trial(
    trial: Callable[..., TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, spec = ranks_made(monkeypatch), trial(1)
    with worker() as run:
        assert run(spec).values == run_here(trial(1, parent="cold")).values
    assert [process_of(spec)] == [f"process {one.pid}" for one in made]
