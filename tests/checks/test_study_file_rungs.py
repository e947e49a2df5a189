"""What `check` warns of where a study has rungs; its plan covers them."""

from __future__ import annotations

from datetime import datetime

import pytest

from hpotune.checks.study_file import check
from hpotune.planning.study_plan import make_plan, notes
from hpotune.workspace.folder import StudyFolder

FILE = """\
name: s
{objective}
params: {{x: {{float: [0, 1]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
budget: {{trials: 9, parallel: 3}}
search: {search}
"""


def warnings(tmp_path, *, python="def f(x):\n    return x\n", command="", search="{pruner: asha}"):
    (tmp_path / "own.py").write_text(python)
    objective = f"command: {command}" if command else "python: own.py:f"
    (tmp_path / "s.yaml").write_text(FILE.format(objective=objective, search=search))
    return check(tmp_path / "s.yaml").warnings


def test_function_without_budget_is_warned_of(tmp_path):
    [said] = warnings(tmp_path)
    assert said.startswith("python: f takes no `budget`; unless it reads $HPOTUNE_RUNG_BUDGET")


@pytest.mark.parametrize("taken", ["x, budget", "x, *, budget=1", "x, **others"])
def test_function_with_budget_is_valid(tmp_path, taken):
    assert warnings(tmp_path, python=f"def f({taken}):\n    return x\n") == []


def test_command_without_budget_is_warned_of(tmp_path):
    [said] = warnings(tmp_path, command="echo {x}")
    assert said.startswith("command does not use {budget}; unless")
    assert warnings(tmp_path, command="echo {x} {budget}") == []


def test_no_warning_without_a_pruner(tmp_path):
    assert warnings(tmp_path, search="{algorithm: random}") == []


def test_rungs_without_pruning_are_warned_of(tmp_path):
    search = "{pruner: median, rungs: [0.1, 0.5, 1]}"
    [said] = warnings(tmp_path, search=search, python="def f(x, budget):\n    return x\n")
    assert said.endswith(
        "s.yaml:6: median prunes no trial in the first fifth of a run, so rung 0.1 only costs time"
    )


@pytest.mark.parametrize("mode", ["async", "batch", "sequential"])
@pytest.mark.parametrize("each", ["auto", 1])
def test_plan_covers_all_rungs(tmp_path, mode, each):
    warnings(tmp_path)
    config = check(tmp_path / "s.yaml").study.config
    execution = config.execution.model_copy(update={"mode": mode, "trials_per_job": each})
    config = config.model_copy(update={"execution": execution})
    made = make_plan(StudyFolder(path=tmp_path / "s"), config, [], now=datetime(2026, 6, 1))
    note_text = "of 9 trials 9, 3, 1 are scored at rung 1, 2, 3, and train 26% of 9 whole runs"
    assert any(note_text in note for note in notes(made))
    assert {way.result.trials for way in made.mode_results} == {9}
    assert sum(spec.count for spec in made.arrays) > 0
