"""The study of the repeats: when it is due, what is in it, how it grows; nothing is trained here."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from hpotune.launch.prepare import PreparedStudy, prepare
from hpotune.launch.repeat_study import new_seed, open_repeats, search_ended
from hpotune.records.derived_points import read_points
from hpotune.records.trial import TrialResult, Worker
from hpotune.schedule.listed_trials import list_done
from hpotune.storage import Claim
from hpotune.worker.trial_spec import base_spec, spec_at_point

FINETUNE = """\
name: s
model: {path: model}
data: {path: rows.jsonl, prompt: alpaca}
train: {learning_rate: {float: [1e-5, 1e-2], log: true}}
score: {objective: {task: hellaswag, metric: acc_norm, goal: 0.9}, test: [arc_easy]}
search: {algorithm: sobol, seed: 7, finalists: 2, repeats: 2}
budget: {trials: 4, parallel: 2, gpu_hours: 100}
"""
FUNCTION = """\
name: s
python: f.py:f
params: {x: {float: [0, 1]}}
score: {objective: {metric: acc}, constraints: [{metric: gb, max: 1}]}
search: {algorithm: sobol, repeats: 2}
budget: {trials: 2}
"""
WORKER = Worker(job="local", host="n1", pid=4_000_000)


def made(home: Path, *, finished: int, text: str = FINETUNE) -> PreparedStudy:
    """A study with so many finished trials."""
    (home / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n' * 9)
    (home / "f.py").write_text("def f(x):\n    return x\n")
    (home / "model").mkdir()
    (home / "model" / "config.json").write_text('{"model_type": "llama"}\n')
    (home / "study.yaml").write_text(text)
    prepared = prepare(home / "study.yaml", chosen=None, data_root=None)
    end(prepared, finished)
    return prepared


def end(prepared: PreparedStudy, count: int) -> None:
    for _ in range(count):
        claim = prepared.store.claim(WORKER)
        assert isinstance(claim, Claim)
        result = TrialResult(number=claim.row.number, state="finished", values=[0.5], stderrs=[0.1])
        prepared.store.complete(claim.trial_id, result)


def repeats_of(study: PreparedStudy, finalists: list[int]) -> PreparedStudy:
    return open_repeats(study.folder, study.study, study.store.rows(), finalists)


def test_search_must_have_ended(tmp_path: Path) -> None:
    study = made(tmp_path, finished=3)
    config, now = study.study.config, datetime.now()
    assert not search_ended(config, study.store.rows(), now=now)
    study.store.claim(WORKER)
    assert not search_ended(config, study.store.rows(), now=now)
    none = config.model_copy(update={"search": config.search.model_copy(update={"repeats": 0})})
    rows = [row for row in study.store.rows() if row.state == "finished"] * 2
    assert search_ended(config, rows, now=now)
    assert not search_ended(none, rows, now=now)


def test_repeats_are_trained_with_new_seeds(tmp_path: Path) -> None:
    study = made(tmp_path, finished=4)
    (study.folder.trial(2) / "adapter").mkdir(parents=True)
    (study.folder.trial(2) / "adapter" / "adapter_config.json").write_text("{}")
    derived = repeats_of(study, [2, 1])
    config = derived.study.config
    assert (config.name, config.budget.trials, config.budget.parallel) == ("s-repeats", 4, 2)
    assert config.score.test == []
    assert config.score.objective[0].goal is None  # it would end them
    assert config.budget.gpu_hours == pytest.approx(100)
    by_number = {row.number: row for row in study.store.rows()}
    specs = []
    for expected in (2, 1, 2, 1):
        claim = derived.store.claim(WORKER)
        assert isinstance(claim, Claim)
        spec = base_spec(claim.row, derived.study, derived.folder, home=str(tmp_path))
        specs.append(spec_at_point(spec, claim.row, derived.study))
        rate = by_number[expected].params["train.learning_rate"]
        assert specs[-1].point.train["learning_rate"] == rate
    assert derived.store.claim(WORKER) is None
    assert all((one.kind, one.sealed, one.adapter) == ("trial", False, None) for one in specs)
    assert len({one.seed for one in specs} | {7}) == 5


def test_seeds_outlive_the_list(tmp_path: Path) -> None:
    assert new_seed(7, 2, 1) == new_seed(7, 2, 1)
    seeds = {new_seed(seed, trial, repeat) for seed in (0, 1) for trial in range(9) for repeat in (1, 2, 3)}
    assert len(seeds) == 54
    study = made(tmp_path, finished=4)
    repeats_of(study, [2, 1])
    first = read_points(study.folder.repeats.path).points
    derived = repeats_of(study, [3, 2])
    listed = read_points(study.folder.repeats.path).points
    assert listed[:4] == first
    assert [one.trial for one in listed[4:]] == [3, 3]
    assert derived.study.config.budget.trials == 6


def test_running_repeats_are_not_changed(tmp_path: Path) -> None:
    study = made(tmp_path, finished=4)
    repeats_of(study, [2, 1]).store.claim(WORKER)
    assert repeats_of(study, [3, 2]).study.config.budget.trials == 4


def test_asked_twice_adds_nothing(tmp_path: Path) -> None:
    study = made(tmp_path, finished=4)
    for _ in range(2):
        derived = repeats_of(study, [2, 1])
        end(derived, 2)
    assert list_done(derived.study.config, derived.store.rows()) is not None
    assert [row.state for row in repeats_of(study, [2, 1]).store.rows()] == ["finished"] * 4


def test_function_is_repeated_with_its_program(tmp_path: Path) -> None:
    study = made(tmp_path, finished=2, text=FUNCTION)
    derived = repeats_of(study, [1, 0])
    claim = derived.store.claim(WORKER)
    assert isinstance(claim, Claim)
    spec = base_spec(claim.row, derived.study, derived.folder, home=str(tmp_path))
    found = spec_at_point(spec, claim.row, derived.study)
    assert found.python == f"{tmp_path}/f.py:f"
    assert found.point.params == {"x": study.store.rows()[1].params["params.x"]}
    assert derived.study.config.score.constraints == []
