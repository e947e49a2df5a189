"""When the sealed test may be opened, and what an opening writes; nothing is trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hpotune.cli import app
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.launch.prepare import PreparedStudy, prepare
from hpotune.launch.sealed_opening import check_has_test, check_search_ended, continue_opening, open_test
from hpotune.records.derived_points import read_points
from hpotune.records.trial import Failure, TrialResult, Worker
from hpotune.schedule.listed_trials import list_done
from hpotune.storage import Claim, Wait
from hpotune.worker.trial_spec import base_spec, spec_at_point
from hpotune.workspace.openings import read_openings, record_opening

FINETUNE = """\
name: NAME
model: {path: model}
data: {path: rows.jsonl, prompt: alpaca}
train: {learning_rate: {float: [1e-5, 1e-2], log: true}}
score: {objective: {task: hellaswag, metric: acc_norm}, test: [arc_easy]}
search: {algorithm: sobol, seed: 7}
budget: {trials: 3, parallel: 2}
"""
WORKER = Worker(job="local", host="n1", pid=4_000_000)


def made(home: Path, *, finished: int, name: str = "s") -> PreparedStudy:
    """A study with so many finished trials."""
    (home / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n' * 9)
    (home / "model").mkdir()
    (home / "model" / "config.json").write_text('{"model_type": "llama"}\n')
    (home / "study.yaml").write_text(FINETUNE.replace("NAME", name))
    prepared = prepare(home / "study.yaml", chosen=None, data_root=None)
    end(prepared, finished)
    return prepared


def end(prepared: PreparedStudy, count: int, **metrics: Any) -> None:
    for _ in range(count):
        claim = prepared.store.claim(WORKER)
        assert isinstance(claim, Claim)
        result = TrialResult(
            number=claim.row.number, state="finished", values=[0.5], stderrs=[0.1],
            metrics={"eval_loss": 2.0, **metrics},
        )  # fmt: skip
        prepared.store.complete(claim.trial_id, result)


def test_running_search_keeps_the_seal(tmp_path: Path) -> None:
    study = made(tmp_path, finished=2)
    with pytest.raises(HpotuneError, match=r"has not ended \(2 of 3 trials\); `hpotune resume"):
        check_search_ended(study.folder, study.study, study.store.rows())
    study.store.claim(WORKER)
    with pytest.raises(HpotuneError, match=r"still runs \(trial 2\)"):
        check_search_ended(study.folder, study.study, study.store.rows())


def test_cancelled_search_has_ended(tmp_path: Path) -> None:
    study = made(tmp_path, finished=2)
    study.folder.jobs.mkdir(exist_ok=True)
    study.folder.cancelled.touch()
    check_search_ended(study.folder, study.study, study.store.rows())


def test_baseline_alone_cannot_be_tested(tmp_path: Path) -> None:
    study = made(tmp_path, finished=1)
    study.folder.jobs.mkdir(exist_ok=True)
    study.folder.cancelled.touch()
    with pytest.raises(HpotuneError, match="no finished trial can be tested"):
        check_search_ended(study.folder, study.study, study.store.rows())


def test_study_without_test_is_refused(tmp_path: Path) -> None:
    study = made(tmp_path, finished=0)
    values = {
        **study.study.source.values,
        "score": {"objective": {"task": "hellaswag", "metric": "acc_norm"}},
    }
    config = study.study.config.model_validate(values | {"train": {}})
    with pytest.raises(StudyFileError, match=r"score\.test names no task"):
        check_has_test(
            study.folder, type(study.study)(source=study.study.source, space=study.study.space, config=config)
        )


def test_opening_lists_base_and_finalists(tmp_path: Path) -> None:
    study = made(tmp_path, finished=3)
    rows = study.store.rows()
    opening, derived = open_test(study.folder, study.study, rows, [2, 1], known=0)
    assert read_openings(study.folder) == (opening,)
    listed = read_points(derived.folder.path)
    assert [(one.trial, one.seed, one.loss) for one in listed.points] == [(2, 7, 2.0), (1, 7, 2.0)]
    assert listed.base_loss == 2.0
    specs = []
    for _ in range(3):
        claim = derived.store.claim(WORKER)
        assert isinstance(claim, Claim)
        spec = base_spec(claim.row, derived.study, derived.folder, home=str(tmp_path))
        specs.append(spec_at_point(spec, claim.row, derived.study))
    assert derived.store.claim(WORKER) is None
    assert [one.kind for one in specs] == ["baseline", "trial", "trial"]
    assert all(one.sealed for one in specs)
    by_number = {row.number: row for row in rows}
    for spec, number in zip(specs[1:], (2, 1), strict=True):
        rate = by_number[number].params["train.learning_rate"]
        assert (spec.point.train["learning_rate"], spec.adapter, spec.expected_loss) == (rate, None, None)
        assert [one.task for one in spec.point.score.test] == ["arc_easy"]


def test_kept_adapter_is_scored(tmp_path: Path) -> None:
    study = made(tmp_path, finished=3)
    adapter = study.folder.trial(1) / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    _, derived = open_test(study.folder, study.study, study.store.rows(), [1], known=0)
    derived.store.claim(WORKER)
    claim = derived.store.claim(WORKER)
    assert isinstance(claim, Claim)
    spec = spec_at_point(
        base_spec(claim.row, derived.study, derived.folder, home=str(tmp_path)), claim.row, derived.study
    )
    assert (spec.adapter, spec.expected_loss) == (str(adapter), 2.0)


def test_unfinished_trial_is_refused(tmp_path: Path) -> None:
    study = made(tmp_path, finished=2)
    with pytest.raises(StudyFileError, match="trial 0: has not finished, or is the baseline"):
        open_test(study.folder, study.study, study.store.rows(), [1, 0], known=0)
    assert read_openings(study.folder) == ()


def test_recorded_opening_is_continued(tmp_path: Path) -> None:
    """A crash between the record of an opening and its study costs nothing, and opens nothing twice."""
    study = made(tmp_path, finished=3)
    record_opening(study.folder, [1], after=0, home=tmp_path)
    for _ in range(2):
        derived = continue_opening(study.folder, study.study, study.store.rows())
    assert derived.study.config.name == "s-test-1"
    assert len(read_openings(study.folder)) == 1
    assert [one.trial for one in read_points(derived.folder.path).points] == [1]


def test_failed_finalist_is_tried_once(tmp_path: Path) -> None:
    study = made(tmp_path, finished=3)
    _, derived = open_test(study.folder, study.study, study.store.rows(), [1, 2], known=0)
    end(derived, 1)
    claim = derived.store.claim(WORKER)
    assert isinstance(claim, Claim)
    derived.store.record_failure(claim.trial_id, Failure(cause="oom", message="no"), owner=WORKER)
    assert list_done(derived.study.config, derived.store.rows()) is None
    end(derived, 1)
    assert list_done(derived.study.config, derived.store.rows()) is not None
    assert isinstance(
        derived.store.claim(WORKER), Wait
    )  # nothing is left, and nobody gets the same point again


def test_long_names_stay_apart(tmp_path: Path) -> None:
    study = made(tmp_path, finished=3, name="n" * 64)
    _, derived = open_test(study.folder, study.study, study.store.rows(), [1], known=0)
    name = derived.study.config.name
    assert len(name) == 64
    assert name.endswith("-test-1")


def test_user_cannot_name_the_list(tmp_path: Path) -> None:
    made(tmp_path, finished=0)
    text = FINETUNE.replace("NAME", "other").replace("sobol", "listed")
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(
        StudyFileError, match=r"other\.yaml:6: search\.algorithm='listed' is for studies that hpotune"
    ):
        prepare(tmp_path / "other.yaml", chosen=None, data_root=None)


def test_status_says_that_it_runs(tmp_path: Path, no_slurm: None) -> None:
    """By the verb: before it is opened, waiting, running, ended."""
    study = made(tmp_path, finished=3)
    folder, rows = study.folder, study.store.rows()
    asked = [str(folder.path)]
    before = CliRunner().invoke(app, ["status", *asked]).output
    _, opening = open_test(folder, study.study, rows, [1], known=0)
    waiting = CliRunner().invoke(app, ["status", *asked]).output
    claim = opening.store.claim(WORKER)
    assert isinstance(claim, Claim)
    running = CliRunner().invoke(app, ["status", *asked]).output
    result = TrialResult(number=claim.row.number, state="finished", values=[0.5], stderrs=[0.1])
    opening.store.complete(claim.trial_id, result)
    end(opening, 1)
    ended = CliRunner().invoke(app, ["status", *asked]).output
    assert "sealed" not in before
    assert f"no job of it runs: `hpotune test {folder.path}` continues it" in waiting
    assert "hpotune resume" not in waiting
    assert running.startswith("s: done, sealed test running (3 of 3 finished)")
    assert "\ns-test-1: running (0 of 2 finished, 1 running, 1 waiting)\n" in running
    assert f"the sealed test has been opened: `hpotune test {folder.path}` shows the result" in ended
    assert "running" not in ended
