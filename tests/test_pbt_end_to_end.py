"""Population based training of a tiny model: four members, four generations; also killed and resumed."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import best_trials
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.trial_pool import STEPS, prepare_pool, rows_in, run_pool, start_pool, steps_of, values_of

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
    folder = prepare_pool(home, study=STUDY)
    run_pool("work", folder, home.with_suffix(".out"))
    return folder


def outcomes(found: Sequence[TrialRow]) -> list[tuple]:
    return [(row.number, row.state, dict(row.params), row.values, row.lineage) for row in found]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pbt")


@pytest.fixture(scope="module")
def folder(home: Path) -> StudyFolder:
    """The study, run by one worker without interruption."""
    return run(home / "uninterrupted")


def ancestors(found: Sequence[TrialRow], row: TrialRow) -> list[TrialRow]:
    """A trial and those it continues from, itself first."""
    line = [row]
    while line[-1].lineage and line[-1].lineage.parent is not None:
        line.append(found[line[-1].lineage.parent])
    return line


def test_each_trial_trains_one_part(folder: StudyFolder) -> None:
    found = rows_in(folder)
    assert [row.state for row in found] == ["finished"] * TRIALS
    assert [row.generation for row in found] == [n // MEMBERS for n in range(TRIALS)]
    assert {steps_of(folder, row.number) for row in found} == {STEPS // PARTS}
    assert [row.metrics["steps"] for row in found] == [9 * (1 + row.generation) for row in found]
    for row in found[MEMBERS:]:
        assert ancestors(found, row)[-1].generation == 0


def test_losers_copy_winners_with_new_values(folder: StudyFolder) -> None:
    found = rows_in(folder)
    copies = [row for row in found[MEMBERS:] if row.lineage and not row.lineage.keeps_values]
    assert len(copies) == PARTS - 1  # one of four, in each generation but the first
    for row in copies:
        parent, predecessor = (found[n] for n in (row.lineage.parent, row.lineage.predecessor))
        assert parent.values < predecessor.values
        assert row.params != parent.params


def test_unchanged_lineage_equals_one_run(folder: StudyFolder, home: Path) -> None:
    run_pool("whole", folder, home / "whole.json")
    values = values_of(home / "whole.json")
    found = rows_in(folder)
    last = found[-MEMBERS:]
    kept = [row for row in last if all(one.params == row.params for one in ancestors(found, row))]
    changed = [row for row in last if row not in kept]
    assert kept
    assert changed
    assert [row.values[0] for row in kept] == pytest.approx([values[r.number] for r in kept], abs=1e-12)
    for row in changed:
        assert abs(row.values[0] - values[row.number]) > 1e-6


def test_best_trial_was_trained_completely(folder: StudyFolder) -> None:
    [best] = best_trials(folder.load().config.score.objective, rows_in(folder), None)
    assert best.generation == PARTS - 1
    kept = {int(path.parent.name) for path in folder.path.glob("trials/*/adapter")}
    assert best.number in kept <= set(range(TRIALS - MEMBERS, TRIALS))


def test_unneeded_checkpoints_are_deleted(folder: StudyFolder) -> None:
    there = {int(path.parent.name) for path in folder.path.glob("trials/*/checkpoint")}
    assert there == set(range(TRIALS - 2 * MEMBERS, TRIALS - MEMBERS))


@pytest.mark.parametrize("victim", [6, 13])
def test_killed_study_ends_the_same(folder: StudyFolder, home: Path, victim: int) -> None:
    broken = prepare_pool(home / f"killed{victim}", study=STUDY)
    out = home / f"killed{victim}.out"
    worker = start_pool("work", broken, out)
    until = time.monotonic() + 200
    while steps_of(broken, victim) < 3:
        assert worker.poll() is None, out.with_suffix(".log").read_text()
        assert time.monotonic() < until
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert [row.number for row in rows_in(broken) if row.state == "running"] == [victim]
    run_pool("work", broken, out)
    after = rows_in(broken)
    assert outcomes(after) == outcomes(rows_in(folder))
    assert [(a.cause, row.number) for row in after for a in row.attempts if a.cause] == [("killed", victim)]
    assert steps_of(broken, victim) == STEPS // PARTS
