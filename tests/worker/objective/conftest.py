"""Trials of commands and functions, evaluated in their real processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective import open_objective
from hpotune.worker.objective.interface import Evaluate, TrialContext
from hpotune.worker.objective.process import StopRequest

LOSS = [{"metric": "loss"}]


@pytest.fixture
def evaluate(tmp_path):
    """Evaluates a command, or the body of a function of x, at some params."""

    def evaluated(
        command: str | None = None,
        function: str | None = None,
        params: dict | None = None,
        stop: StopRequest | None = None,
        **others: Any,
    ) -> TrialResult:
        with opened(tmp_path, command, function, [params or {}], stop=stop, **others) as (run, (spec,)):
            return run([spec])[0]

    return evaluated


@contextmanager
def opened(
    tmp_path: Path,
    command: str | None,
    function: str | None,
    points: list[dict],
    *,
    objective: list | None = None,
    stop: StopRequest | None = None,
    env: dict | None = None,
    collect: dict | None = None,
    rung: dict | None = None,
    warm: bool = True,
) -> Iterator[tuple[Evaluate, list[TrialSpec]]]:
    """The objective of a study that is open, and the spec of a trial at each point; a single one is in `trial`."""
    score = {"objective": objective or LOSS, "collect": collect or {}}
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    own = {"command": command}
    if function:
        (home / "own.py").write_text(f"def f(x=0, **others):\n    {function}\n")
        own = {"python": f"{home}/own.py:f"}
    values = {"name": "s", "score": score, "budget": {"trials": 1}, "params": points[0], **own}
    config = StudyConfig.model_validate({**values, "env": {"vars": env or {}}, "execution": {"warm": warm}})
    specs = []
    for number, params in enumerate(points, start=3):
        folder = tmp_path / ("trial" if len(points) == 1 else f"trial{number}")
        folder.mkdir(exist_ok=True)
        values = {
            **own, "study": "s", "number": number, "kind": "trial", "seed": 0, "folder": str(folder),
            "home": str(home), "point": {"score": score, "params": params}, "rung": rung,
        }  # fmt: skip
        specs.append(TrialSpec.model_validate(values))
    with open_objective(TrialContext(config=config, env=os.environ, stop=stop or StopRequest())) as run:
        yield run, specs


@pytest.fixture
def until():
    """Waits for a condition; returns whether it came true in time."""

    def wait(condition, seconds: float = 20) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
        return bool(condition())

    return wait


@pytest.fixture
def request_stop(until):
    """Requests a stop, in a thread, as soon as the trial has written a file."""

    def start(stop: StopRequest, ready: Path, number: int = signal.SIGTERM) -> threading.Thread:
        def wait_and_request() -> None:
            assert until(ready.exists)
            stop._on_signal(number, None)

        thread = threading.Thread(target=wait_and_request)
        thread.start()
        return thread

    return start
