"""ASHA on real trainings of a tiny model: the best of 27 trials for less than half of their cost, killed or not."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpotune.records.trial import TrialRow
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.pool_runs import pool, rows, steps_of
from tests.pool import STEPS, TRIALS, made


def promoted(found: Sequence[TrialRow]) -> dict[int, list[tuple[int, float]]]:
    """Which rungs each trial reached, with what."""
    return {row.number: [(one.rung, one.values[0]) for one in row.rung_scores] for row in found}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def climbed(home: Path) -> StudyFolder:
    """The study, worked on by one worker from its beginning to its end."""
    folder = made(home / "unbroken")
    assert pool("climb", folder, home / "unbroken.out").wait(300) == 0, (home / "unbroken.log").read_text()
    return folder


@pytest.fixture(scope="module")
def values(climbed: StudyFolder, home: Path) -> dict[int, float]:
    """What each trial of the pool comes to when it is trained in one go."""
    assert pool("whole", climbed, home / "whole.json").wait(300) == 0, (home / "whole.log").read_text()
    told = json.loads((home / "whole.json").read_text().splitlines()[-1])
    return {int(number): value for number, value in told.items()}


def test_best_is_found_at_half_cost(
    climbed: StudyFolder, values: dict[int, float]
) -> None:
    found = rows(climbed)
    finished = [row for row in found if row.state == "finished"]
    assert len(found) == len(values) == TRIALS
    assert min(finished, key=lambda row: row.values).number == min(values, key=values.__getitem__)
    cost = sum(steps_of(climbed, row.number) for row in found)
    assert cost == sum({0: 4, 1: 12, 2: STEPS}[row.rung_scores[-1].rung] for row in found)
    assert cost < TRIALS * STEPS / 2


def test_staged_trial_equals_one_run(
    climbed: StudyFolder, values: dict[int, float]
) -> None:
    finished = {row.number: row.values[0] for row in rows(climbed) if row.state == "finished"}
    assert finished == pytest.approx({number: values[number] for number in finished}, abs=1e-6)


def test_only_best_adapters_are_kept(climbed: StudyFolder) -> None:
    kept = {int(path.parent.name) for path in climbed.path.glob("trials/*/adapter")}
    best = sorted((row for row in rows(climbed) if row.state == "finished"), key=lambda row: row.values)[:3]
    assert kept == {row.number for row in best}
    assert not list(climbed.path.glob("trials/*/checkpoint"))


def test_killed_study_ends_the_same(climbed: StudyFolder, home: Path) -> None:
    folder = made(home / "killed")
    worker = pool("climb", folder, home / "killed.out")
    until = time.monotonic() + 200
    while steps_of(folder, 11) < 2 or not any(steps_of(folder, n) > 4 for n in range(11)):
        assert worker.poll() is None, (home / "killed.log").read_text()
        assert time.monotonic() < until
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert any(row.state == "running" for row in rows(folder))
    assert pool("climb", folder, home / "killed.out").wait(300) == 0, (home / "killed.log").read_text()
    after, before = rows(folder), rows(climbed)
    assert promoted(after) == promoted(before)
    assert [(row.number, row.state, row.values) for row in after] == [
        (r.number, r.state, r.values) for r in before
    ]
    assert sum(a.cause == "killed" for row in after for a in row.attempts) == 1
