"""The Pareto front of a study: uncertain members, trials that may be on it, where errors are from, hypervolume."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.reporting.best_table import best_table
from hpotune.reporting.status_table import best_so_far
from hpotune.reporting.tables import trials_table
from hpotune.reporting.views.best import best_result
from hpotune.reporting.views.pareto_front import ParetoFront, pareto_view
from hpotune.reporting.views.trial_view import trial_view
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import config, finished, printed, status_of

ACC = Objective(task="exam", metric="acc", direction="maximize")
NORM = Objective(task="exam", metric="acc_norm", direction="maximize")
MEMORY = Objective(metric="peak_memory_gb", direction="minimize")
PLAIN: dict[str, Any] = {
    "score": {"objective": [{"metric": "acc"}, {"metric": "gb", "direction": "minimize"}]}
}


def measured(
    number: int, *values: float, errors: tuple[float | None, ...] = (0.02, None), **more: Any
) -> TrialRow:
    return TrialRow(
        number=number, kind="trial", state="finished", params={}, values=values, stderrs=errors,
        end=float(number), **more
    )  # fmt: skip


def found(folder: Path, objectives: list[Objective], *rows: TrialRow) -> ParetoFront:
    view = pareto_view(StudyFolder(path=folder), objectives, rows)
    assert view is not None
    return view


ROWS = [
    finished(0, 0.9, kind="baseline"),
    measured(1, 0.70, 10.0),
    measured(2, 0.71, 20.0),
    measured(3, 0.50, 5.0),
    measured(4, 0.695, 15.0),
    measured(5, 0.30, 30.0),
    measured(6, 0.99, 1.0, breaks=("x",)),
]


def test_uncertain_members_are_marked(tmp_path: Path) -> None:
    """Trial 2 is ahead of 1 by a third of an error at twice the memory; 4 is behind 1 by a sixth of one."""
    view = found(tmp_path, [ACC, MEMORY], *ROWS)
    assert [(one.number, one.certain) for one in view.members] == [(2, False), (1, True), (3, True)]
    assert [one.number for one in view.candidates] == [4]
    probabilities = {one.number: one.probability for one in (*view.members, *view.candidates)}
    assert 0.4 < (probabilities[2] or 0) < 0.6
    assert 0.3 < (probabilities[4] or 0) < 0.5
    assert view.errors == {"exam/acc": "standard error", "peak_memory_gb": "none"}


def test_objectives_without_errors_are_exact(tmp_path: Path) -> None:
    rows = [measured(n, float(n), float(n), errors=(None, None)) for n in (1, 2)]
    view = found(tmp_path, [ACC, MEMORY], *rows)
    assert [(one.probability, one.certain) for one in view.members] == [(None, True)] * 2
    assert set(view.errors.values()) == {"none"}


def test_metrics_of_a_task_are_paired(tmp_path: Path) -> None:
    """Trial 2 answers like trial 1 but for one item in both metrics: its errors are nearly those of trial 1."""
    folder, rng, rows = StudyFolder(path=tmp_path), np.random.default_rng(0), []
    right = rng.integers(0, 2, (2, 400)).astype(float)
    for number in (1, 2):
        path = folder.trial(number) / "items.npz"
        path.parent.mkdir(parents=True)
        if number == 2:
            right[:, np.flatnonzero(right.sum(axis=0) == 2)[:6]] = 0
        names = {"exam/acc": right[0], "exam/acc_norm": right[1], "exam/doc_id": np.arange(400)}
        np.savez(path, **names)  # type: ignore[arg-type]
        rows.append(measured(number, *right.mean(axis=1), errors=(0.025, 0.025)))
    view = found(tmp_path, [ACC, NORM], *rows)
    assert set(view.errors.values()) == {"items"}
    [first] = view.members
    assert (first.number, first.certain) == (1, True)
    assert view.candidates == ()


def test_hypervolume_rises_with_the_front(tmp_path: Path) -> None:
    """By hand: the reference is a tenth of the front's range beyond its worst values."""
    view = found(tmp_path, [ACC, MEMORY], *ROWS)
    volume = view.hypervolume
    assert volume.reference == pytest.approx({"exam/acc": 0.5 - 0.021, "peak_memory_gb": 20 + 1.5})
    assert [(one.finished, one.number) for one in volume.steps] == [(1, 1), (2, 2), (3, 3)]
    first = (0.70 - 0.479) * (21.5 - 10)
    assert [one.value for one in volume.steps] == pytest.approx(
        [first, first + 0.01 * 1.5, first + 0.01 * 1.5 + 0.021 * 5]
    )


def test_one_objective_has_no_front(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    assert pareto_view(folder, [ACC], ROWS) is None
    assert pareto_view(folder, [ACC, MEMORY], ROWS[:1]) is None


def test_many_trials_are_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [measured(n, *map(float, rng.random(2))) for n in range(600)]
    view = found(tmp_path, [ACC, MEMORY], *rows)
    assert all(one.probability is not None for one in view.members)
    assert len(view.candidates) < 200


def test_front_is_said_in_words(tmp_path: Path) -> None:
    rows = [one for one in ROWS if one.kind == "trial"]
    text = printed(best_table(best_result(StudyFolder(path=tmp_path), config(**PLAIN), rows)))
    assert re.search(r"Pareto front, best acc first: trials 2 \(uncertain: \d\d %\), 1, 3\b", text)
    assert "may be on the front too: trial 4 (" in text
    assert "no standard error, counted as exact: gb" in text
    assert "(reference point: acc 0.479, gb 21.5)" in text


def test_tables_name_the_front() -> None:
    rows = [one for one in ROWS if one.kind == "trial"]
    lines = best_so_far(status_of(rows, **PLAIN))
    assert lines[0] == "Pareto front, 3 trials: trial 2, acc 0.71 ± 0.02, gb 20 (± standard error)"
    views = [trial_view(config(**PLAIN).score.objective, row) for row in rows]
    text = printed(trials_table(views, front={1, 2, 3}))
    assert "*: on the Pareto front" in text
    assert [line.split()[0] for line in text.splitlines()[1:7]].count("4") == 1
    assert {"1*", "2*", "3*"} <= {line.split()[0] for line in text.splitlines() if line.strip()}
