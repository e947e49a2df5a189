"""ASHA on real trainings of a tiny model: the best of 27 trials for less than half of their cost, killed or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpotune.records.trial import TrialRow
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder
from tests.pool import STEPS, TRIALS, made

ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def pool(mode: str, folder: StudyFolder, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.pool", mode, str(folder.path)]
    return subprocess.Popen(
        command, stdout=out.open("wb"), stderr=out.with_suffix(".log").open("ab"), env=ENV
    )


def rows(folder: StudyFolder) -> list[TrialRow]:
    return rows_of(folder.provenance().store, folder.load())


def steps_of(folder: StudyFolder, number: int) -> int:
    curve = folder.trial(number) / "curve.jsonl"
    return curve.read_text().count("\n") if curve.exists() else 0


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


def test_the_best_of_the_pool_is_found_for_less_than_half_of_its_cost(
    climbed: StudyFolder, values: dict[int, float]
) -> None:
    found = rows(climbed)
    finished = [row for row in found if row.state == "finished"]
    assert len(found) == len(values) == TRIALS
    assert min(finished, key=lambda row: row.values).number == min(values, key=values.__getitem__)
    cost = sum(steps_of(climbed, row.number) for row in found)
    assert cost == sum({0: 4, 1: 12, 2: STEPS}[row.rung_scores[-1].rung] for row in found)
    assert cost < TRIALS * STEPS / 2


def test_a_trial_that_climbed_ends_as_one_that_was_trained_in_one_go(
    climbed: StudyFolder, values: dict[int, float]
) -> None:
    finished = {row.number: row.values[0] for row in rows(climbed) if row.state == "finished"}
    assert finished == pytest.approx({number: values[number] for number in finished}, abs=1e-6)


def test_only_the_best_adapters_and_no_checkpoints_stay(climbed: StudyFolder) -> None:
    kept = {int(path.parent.name) for path in climbed.path.glob("trials/*/adapter")}
    best = sorted((row for row in rows(climbed) if row.state == "finished"), key=lambda row: row.values)[:3]
    assert kept == {row.number for row in best}
    assert not list(climbed.path.glob("trials/*/checkpoint"))


def test_killed_in_the_middle_and_resumed_it_comes_to_the_same(climbed: StudyFolder, home: Path) -> None:
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
