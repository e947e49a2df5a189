"""Known results of another study: the search learns from them, repeats none, and counts none as its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpotune.checks.study_file import check
from hpotune.config.load import Study
from hpotune.errors import StudyFileError
from hpotune.search.assign import assign_point
from hpotune.search.start_points import save_start_points
from hpotune.warm_start.start_point_sources import start_points

LINES = ["number,state,value,params.x"] + [
    f"{n},finished,{(x - 1) ** 2!r},{x!r}" for n, x in enumerate([-2.9, -1.5, 0.4, 0.9, 1.2, 2.8])
]
FAILED = ["6,finished,0.5,", "7,failed,,0.5", "8,finished,nan,0.6", "9,finished,1.0,7.5"]


@pytest.fixture
def known_study(make_study: Callable[..., Study], tmp_path: Path) -> Callable[..., Study]:
    """A study of (x - 1)^2 that knows six results of another one."""

    def made(algorithm: str = "auto", lines: list[str] = LINES + FAILED, **search: Any) -> Study:
        (tmp_path / "old.csv").write_text("\n".join(lines) + "\n")
        item = {"path": str(tmp_path / "old.csv"), "known": True}
        return make_study(
            search={"algorithm": algorithm, "start_from": [item], **search}, budget={"trials": 8}
        )

    return made


def first_points(study: Study, home: Path, count: int = 3) -> list[float]:
    """The points of the first trials, without results of their own."""
    mistakes: dict[Any, str] = {}
    starts, _ = start_points(study, home=home, found=mistakes)
    assert mistakes == {}
    storage = optuna.storages.InMemoryStorage()
    made = optuna.create_study(study_name=study.config.name, storage=storage)
    assert save_start_points(storage, made._study_id, starts)
    points = []
    for _ in range(count):
        trial = storage.get_trial(storage.create_new_trial(made._study_id))
        assign_point(storage, study, study.config, trial)
        points.append(storage.get_trial(trial._trial_id).params["params.x"])
    assert len(storage.get_all_trials(made._study_id)) == count
    return points


@pytest.mark.parametrize("algorithm", ["auto", "gp"])
def test_first_trial_uses_what_is_known(
    algorithm: str, known_study: Callable[..., Study], tmp_path: Path
) -> None:
    options = {"options": {"n_startup": 5}} if algorithm == "gp" else {}
    points = first_points(known_study(algorithm, **options), tmp_path)
    assert 0.4 < points[0] < 1.6  # the optimum is 1; of points drawn at random a fifth lie there
    assert not set(points) & {-2.9, -1.5, 0.4, 0.9, 1.2, 2.8}


def test_tpe_prefers_good_known_points(known_study: Callable[..., Study], tmp_path: Path) -> None:
    lines = LINES[:1] + [
        f"{n},finished,{(x - 1) ** 2!r},{x!r}" for n, x in enumerate(-3 + 6 * k / 39 for k in range(40))
    ]
    points = first_points(known_study("tpe", lines), tmp_path, count=6)
    assert sum(0 < x < 2 for x in points) >= 5


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ({"algorithm": "random"}, "known: true needs one of the algorithms auto, gp, tpe"),
        ({"lines": ["number,params.x", "1,0.5"]}, "has no row with a `value` inside the ranges"),
        (
            {"lines": LINES[:1] + [f"1,finished,1,{k / 1000}" for k in range(600)]},
            "has 600 known results; add take: 500",
        ),
    ],
)
def test_wrong_known_results(
    search: dict[str, Any], text: str, known_study: Callable[..., Study], tmp_path: Path
) -> None:
    known_study(**search)
    with pytest.raises(StudyFileError, match=text):
        check(tmp_path / "home" / "study.yaml")


def test_known_results_use_no_budget(known_study: Callable[..., Study], tmp_path: Path) -> None:
    known_study()
    found = check(tmp_path / "home" / "study.yaml")
    assert next(start.value for start in found.starts if start.known) == pytest.approx(15.21)
    assert not any("proposes no point" in text for text in found.warnings)


def test_unusable_rows_are_left_out(known_study: Callable[..., Study], tmp_path: Path) -> None:
    mistakes: dict[Any, str] = {}
    starts, _ = start_points(known_study(), home=tmp_path, found=mistakes)
    assert mistakes == {}
    assert [start.params["params.x"] for start in starts] == [-2.9, -1.5, 0.4, 0.9, 1.2, 2.8]
