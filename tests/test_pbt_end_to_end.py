"""Population based training of a tiny model: four members, four parts of a run; killed in the middle and resumed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import best_trials
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.pool_runs import pool, rows, steps_of
from tests.pool import STEPS, made

MEMBERS, PARTS = 4, 4
TRIALS = MEMBERS * PARTS
STUDY = rf"""
name: pbt
model: {{path: model, dtype: float64}}
data: {{path: task/train.jsonl, prompt: "{{input}} Topic: ", response: "{{output}}", validation: 32}}
lora: {{r: 8, lora_alpha: 16}}
train:
  learning_rate: {{float: [1.0e-4, 3.0e-2], log: true}}
  weight_decay: {{float: [0.0, 0.1]}}
  global_batch_size: 8
  max_steps: {STEPS}
  save_steps: 2
  logging_steps: 1
score: {{objective: {{metric: eval_loss}}}}
search: {{algorithm: pbt, options: {{population: {MEMBERS}, generations: {PARTS}, quantile: 0.25}}}}
budget: {{trials: {TRIALS}}}
checks: {{baseline: false}}
"""


def run(home: Path) -> StudyFolder:
    folder = made(home, study=STUDY)
    assert pool("climb", folder, home.with_suffix(".out")).wait(300) == 0, home.with_suffix(
        ".log"
    ).read_text()
    return folder


def came_to(found: Sequence[TrialRow]) -> list[tuple]:
    return [(row.number, row.state, dict(row.params), row.values, row.lineage) for row in found]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pbt")


@pytest.fixture(scope="module")
def folder(home: Path) -> StudyFolder:
    """The study, worked on by one worker from its beginning to its end."""
    return run(home / "unbroken")


def forebears(found: Sequence[TrialRow], row: TrialRow) -> list[TrialRow]:
    """A trial and those it goes on from, itself first."""
    line = [row]
    while line[-1].lineage and line[-1].lineage.parent is not None:
        line.append(found[line[-1].lineage.parent])
    return line


def test_each_trial_trains_one_part(folder: StudyFolder) -> None:
    found = rows(folder)
    assert [row.state for row in found] == ["finished"] * TRIALS
    assert [row.generation for row in found] == [n // MEMBERS for n in range(TRIALS)]
    assert {steps_of(folder, row.number) for row in found} == {STEPS // PARTS}
    assert [row.metrics["steps"] for row in found] == [9 * (1 + row.generation) for row in found]
    for row in found[MEMBERS:]:
        assert forebears(found, row)[-1].generation == 0


def test_losers_copy_winners_with_new_values(folder: StudyFolder) -> None:
    found = rows(folder)
    copies = [row for row in found[MEMBERS:] if row.lineage and not row.lineage.keeps_values]
    assert len(copies) == PARTS - 1  # one of four, in each generation but the first
    for row in copies:
        parent, place = (found[n] for n in (row.lineage.parent, row.lineage.predecessor))
        assert parent.values < place.values
        assert row.params != parent.params


def test_unchanged_lineage_equals_one_run(folder: StudyFolder, home: Path) -> None:
    assert pool("whole", folder, home / "whole.json").wait(300) == 0, (home / "whole.log").read_text()
    told = json.loads((home / "whole.json").read_text().splitlines()[-1])
    found = rows(folder)
    last = found[-MEMBERS:]
    kept = [row for row in last if all(one.params == row.params for one in forebears(found, row))]
    changed = [row for row in last if row not in kept]
    assert kept
    assert changed
    assert [row.values[0] for row in kept] == pytest.approx([told[str(r.number)] for r in kept], abs=1e-12)
    for row in changed:
        assert abs(row.values[0] - told[str(row.number)]) > 1e-6


def test_best_trial_was_trained_completely(folder: StudyFolder) -> None:
    [best] = best_trials(folder.load().config.score.objective, rows(folder))
    assert best.generation == PARTS - 1
    kept = {int(path.parent.name) for path in folder.path.glob("trials/*/adapter")}
    assert best.number in kept <= set(range(TRIALS - MEMBERS, TRIALS))


def test_unneeded_checkpoints_are_deleted(folder: StudyFolder) -> None:
    there = {int(path.parent.name) for path in folder.path.glob("trials/*/checkpoint")}
    assert there == set(range(TRIALS - 2 * MEMBERS, TRIALS - MEMBERS))


@pytest.mark.parametrize("victim", [6, 13])
def test_killed_study_ends_the_same(
    folder: StudyFolder, home: Path, victim: int
) -> None:
    broken = made(home / f"killed{victim}", study=STUDY)
    out = home / f"killed{victim}.out"
    worker = pool("climb", broken, out)
    until = time.monotonic() + 200
    while steps_of(broken, victim) < 3:
        assert worker.poll() is None, out.with_suffix(".log").read_text()
        assert time.monotonic() < until
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert [row.number for row in rows(broken) if row.state == "running"] == [victim]
    assert pool("climb", broken, out).wait(300) == 0, out.with_suffix(".log").read_text()
    after = rows(broken)
    assert came_to(after) == came_to(rows(folder))
    assert [(a.cause, row.number) for row in after for a in row.attempts if a.cause] == [("killed", victim)]
    assert steps_of(broken, victim) == STEPS // PARTS
