"""Studies in folders of their own, and workers on them."""

from __future__ import annotations

import os
import signal
import time

import pytest

from hpotune.storage import TrialQueue
from hpotune.worker.loop import WorkerLoop


@pytest.fixture
def new_study(make_study, make_study_folder, tmp_path):
    """Makes a study's folder and its trial queue, on SQLite unless a URL is given."""

    def made(url: str | None = None, *, folder_name: str = "study", **sections):
        study = make_study(**sections)
        url = url or f"sqlite:///{tmp_path}/{folder_name}.db"
        folder = make_study_folder(study, url, folder_name)
        return folder, TrialQueue.create(url, study, folder=str(folder.path))

    return made


@pytest.fixture
def work():
    """Runs a worker in this process to its end."""

    def run(folder, *, trials: int | None = None, **options):
        return WorkerLoop.open(folder, **{"env": os.environ, **options}).run(trials=trials)

    return run


@pytest.fixture
def until():
    """Waits for a condition; returns whether it came true in time."""

    def wait(condition, seconds: float = 40) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.1)
        return bool(condition())

    return wait


@pytest.fixture(autouse=True)
def _signal_handlers_restored():
    """A worker handles signals; the next test must not."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
