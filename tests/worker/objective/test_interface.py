"""What a function's or a command's answer becomes; each trial is the process it really is."""

from __future__ import annotations

import json

import pytest

from hpotune.records.failure_causes import FULL_DISK_EXIT
from hpotune.records.trial import TrialSpec
from hpotune.worker.objective.interface import read_result
from hpotune.worker.objective.process import ProcessExit, StopRequest


def test_params_are_in_environment(evaluate):
    line = """python3 -c 'import os, json; print(json.loads(os.environ["HPOTUNE_PARAMS"])["lr"])'"""
    assert evaluate(line, params={"lr": 0.125}).values == [0.125]


def test_env_vars_of_study_are_set(evaluate):
    assert evaluate("echo $GIVEN", env={"GIVEN": "4"}).values == [4.0]


def test_infinite_metric_becomes_null(evaluate):
    assert evaluate("""echo '{{"loss": 1, "grad": Infinity}}'""").metrics == {"loss": 1, "grad": None}


def test_earlier_out_of_memory_is_ignored(evaluate):
    evaluate("echo out of memory; exit 1")
    assert evaluate("exit 1").failure.cause == "user"


def test_spec_is_in_trial_folder(evaluate, tmp_path):
    evaluate("echo 1", params={"x": 2})
    assert json.loads((tmp_path / "trial" / "spec.json").read_text())["point"]["params"] == {"x": 2}


@pytest.mark.parametrize(("own", "cause"), [({}, "store"), ({"command": "x"}, "user")])
def test_full_disk_is_no_own_failure(tmp_path, own, cause):
    (tmp_path / "log.txt").write_text("")  # the disk has room again
    score = {"objective": [{"metric": "eval_loss", "direction": "minimize"}]}
    given = {"study": "s", "number": 1, "kind": "trial", "seed": 0, "folder": str(tmp_path)}
    spec = TrialSpec.model_validate({**given, "point": {"score": score}, **own})
    result = read_result(spec, ProcessExit(code=FULL_DISK_EXIT), stop=StopRequest())
    assert result.failure is not None
    assert result.failure.cause == cause
