"""Studies in folders of their own, for workers to work on."""

from __future__ import annotations

import signal

import pytest

from hpotune.storage import TrialQueue


@pytest.fixture
def place(make_study, make_study_folder, tmp_path):
    """A study's folder and its store, on SQLite unless a URL is given."""

    def made(url: str | None = None, *, folder_name: str = "study", **sections):
        study = make_study(**sections)
        url = url or f"sqlite:///{tmp_path}/{folder_name}.db"
        folder = make_study_folder(study, url, folder_name)
        return folder, TrialQueue.create(url, study, folder=str(folder.path))

    return made


@pytest.fixture(autouse=True)
def _signals_as_before():
    """`work` listens to signals; what comes after must not."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
