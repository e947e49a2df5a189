"""Every test of the store runs on each of the three storages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.config.load import Study
from hpotune.storage import TrialQueue

STORAGES = ["sqlite", "journal", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=STORAGES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty storage."""
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres")
        return found
    return f"{request.param}:///{tmp_path}/store"


@pytest.fixture
def make_store(url: str, make_study: Callable[..., Study]) -> Callable[..., TrialQueue]:
    """A store of a study in its first state."""

    def made(**sections: object) -> TrialQueue:
        return TrialQueue.create(url, make_study(**sections), folder="/studies/bowl")

    return made
