"""A plan as `plan` prints it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpotune.planning.study_plan import make_plan
from hpotune.reporting.plan_table import plan_table
from hpotune.reporting.views.plan_view import PlanView, plan_view
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import NOW, config, printed


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanView:
    """Ten trials, two at a time, where there is no Slurm."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return plan_view(make_plan(StudyFolder(path=tmp_path / "s"), config(), [], now=NOW))


def test_plan_shows_headline_and_modes(plan: PlanView) -> None:
    lines = printed(plan_table(plan, [])).splitlines()
    assert lines[0].startswith("s: 10 trials in about ")
    (own,) = [line for line in lines if "study file" in line and line.startswith(plan.own.mode)]
    assert f"{plan.own.gpu_hours:.2f}" in own
    assert any(line.startswith("recommended: execution: {mode: ") for line in lines)


def test_each_time_names_its_source(plan: PlanView) -> None:
    text = printed(plan_table(plan, []))
    for name, figure in plan.figures.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        assert figure.source in line


def test_unfinished_trials_are_said(plan: PlanView) -> None:
    own = replace(plan.own, trials=4, reason="no GPU-hours are left")
    modes = tuple(own if mode.own else mode for mode in plan.modes)
    headline = printed(plan_table(replace(plan, modes=modes), [])).splitlines()[0]
    assert "; only 4 of them finish: no GPU-hours are left" in headline


def test_measured_numbers_stand_beside_planned(plan: PlanView) -> None:
    shown = replace(plan, planned={"wall_s": 600.0, "trials": 10}, actual={"state": "done", "wall_s": 660.0})
    lines = printed(plan_table(shown, [])).splitlines()
    assert any(line.split() == ["planned", "actual", "(done)"] for line in lines)
    assert any(line.split() == ["wall", "time", "10", "min", "11", "min"] for line in lines)
    assert any(line.split() == ["trials", "10", "-"] for line in lines)
