"""ASHA with real trainings of a tiny model: it finds the best of 27 trials for less than half of their cost."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpotune.records.trial import TrialRow
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.trial_pool import (
    STEPS,
    TRIALS,
    prepare_pool,
    rows_in,
    run_pool,
    start_pool,
    steps_of,
    values_of,
)


def promoted(found: Sequence[TrialRow]) -> dict[int, list[tuple[int, float]]]:
    """The score of each trial at each of its rungs."""
    return {row.number: [(one.rung, one.values[0]) for one in row.rung_scores] for row in found}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def pool(home: Path) -> StudyFolder:
    """The study, run by one worker without interruption."""
    folder = prepare_pool(home / "uninterrupted")
    run_pool("work", folder, home / "uninterrupted.out")
    return folder


@pytest.fixture(scope="module")
def values(pool: StudyFolder, home: Path) -> dict[int, float]:
    """The value of each trial when it is trained in one stage."""
    run_pool("whole", pool, home / "whole.json")
    return values_of(home / "whole.json")


def test_best_is_found_at_half_cost(pool: StudyFolder, values: dict[int, float]) -> None:
    found = rows_in(pool)
    finished = [row for row in found if row.state == "finished"]
    assert len(found) == len(values) == TRIALS
    assert min(finished, key=lambda row: row.values).number == min(values, key=values.__getitem__)
    cost = sum(steps_of(pool, row.number) for row in found)
    assert cost == sum({0: 4, 1: 12, 2: STEPS}[row.rung_scores[-1].rung] for row in found)
    assert cost < TRIALS * STEPS / 2


def test_staged_trial_equals_one_run(pool: StudyFolder, values: dict[int, float]) -> None:
    finished = {row.number: row.values[0] for row in rows_in(pool) if row.state == "finished"}
    assert finished == pytest.approx({number: values[number] for number in finished}, abs=1e-6)


def test_only_best_adapters_are_kept(pool: StudyFolder) -> None:
    kept = {int(path.parent.name) for path in pool.path.glob("trials/*/adapter")}
    best = sorted((row for row in rows_in(pool) if row.state == "finished"), key=lambda row: row.values)[:3]
    assert kept == {row.number for row in best}
    assert not list(pool.path.glob("trials/*/checkpoint"))


def test_killed_study_ends_the_same(pool: StudyFolder, home: Path) -> None:
    folder = prepare_pool(home / "killed")
    worker = start_pool("work", folder, home / "killed.out")
    until = time.monotonic() + 200
    while steps_of(folder, 11) < 2 or not any(steps_of(folder, n) > 4 for n in range(11)):
        assert worker.poll() is None, (home / "killed.log").read_text()
        assert time.monotonic() < until
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert any(row.state == "running" for row in rows_in(folder))
    run_pool("work", folder, home / "killed.out")
    after, before = rows_in(folder), rows_in(pool)
    assert promoted(after) == promoted(before)
    assert [(row.number, row.state, row.values) for row in after] == [
        (r.number, r.state, r.values) for r in before
    ]
    assert sum(a.cause == "killed" for row in after for a in row.attempts) == 1
