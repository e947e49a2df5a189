"""A race of real trainings of a tiny model: bad trials end early, with an estimate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hpotune.cli import app
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.trial_pool import prepare_pool, rows_in, run_pool

STUDY = r"""
name: pool
model: {path: model}
data: {path: task/train.jsonl, prompt: "{input} Topic: ", response: "{output}", validation: 8}
lora: {r: 8, lora_alpha: 16, target_modules: all-linear}
train: {learning_rate: {choice: [1.0e-6, 3.0e-2, 2.0e-6, 5.0e-2]}, global_batch_size: 8, max_steps: 12}
score: {objective: {task: toy_topics, metric: acc}, include_path: task, race: true}
search: {algorithm: grid}
budget: {trials: 4}
keep: {best: 1}
checks: {baseline: false, reload: false, identity: false}
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The study, run by one worker."""
    home = tmp_path_factory.mktemp("race")
    folder = prepare_pool(home, study=STUDY)
    run_pool("work", folder, home / "work.out")
    return folder


def test_worse_trials_are_not_scored_whole(pool: StudyFolder) -> None:
    rows = rows_in(pool)
    finished = {row.number: row for row in rows if row.state == "finished"}
    raced = [row for row in rows if row.race is not None]
    assert len(finished) + len(raced) == len(rows) == 4
    assert raced
    for row in raced:
        assert row.race is not None
        leader = finished[row.race.leader]
        assert row.race.scored_items < row.race.items
        assert row.values[0] == pytest.approx(row.race.leader_value + row.race.difference)
        assert row.values[0] < leader.values[0] == row.race.leader_value
        assert len(items(pool, row.number)) == row.race.scored_items
    assert {len(items(pool, number)) for number in finished} == {80}


def items(pool: StudyFolder, number: int) -> np.ndarray:
    with np.load(pool.trial(number) / "items.npz") as stored:
        return stored["toy_topics/acc"]


def test_raced_trials_are_shown_as_estimates(pool: StudyFolder) -> None:
    def output(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, str(pool.path)])
        assert done.exit_code == 0, done.output
        return done.output

    raced = [row for row in rows_in(pool) if row.race is not None]
    shown = {one["number"]: one for one in json.loads(output("trials", "--json"))}
    assert all(
        shown[row.number]["race"]["scored_items"] == row.race.scored_items for row in raced if row.race
    )
    assert json.loads(output("status", "--json"))["trials"]["raced"] == len(raced)
    assert f"{len(raced)} of the pruned trials ended while they were scored" in " ".join(
        output("status").split()
    )
    best = json.loads(output("best", "--json"))
    assert best["best"]["race"] is None
    assert best["stopped"] == len(raced)
    assert not any((pool.trial(row.number) / "adapter").exists() for row in raced)
