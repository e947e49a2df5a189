"""Which trials are finalists: the best and the cheapest, then by score, by the front, or by the rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpotune.reporting.finalists import choose_finalists
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import config, finished

ROWS = [
    finished(0, 0.99, kind="baseline"),
    finished(1, 0.9, metrics={"gb": 50.0}),
    finished(2, 0.5, metrics={"gb": 30.0}),
    finished(3, 0.7, metrics={"gb": 20.0}),
    finished(4, 0.8),
    finished(5, 0.95, metrics={"gb": 1.0}, breaks=("x=1 > 0",)),
]


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (None, [1, 4, 3]),
        ({"minimize": "gb"}, [3, 2, 1]),
        ({"subject_to": "gb < 40"}, [3, 2]),
        ({"subject_to": "gb < 0"}, []),
    ],
)
def test_finalists_follow_the_rule(best: Any, expected: list[int], tmp_path: Path) -> None:
    assert choose_finalists(StudyFolder(path=tmp_path), config(best=best), ROWS) == expected


@pytest.mark.parametrize(("best", "expected"), [(None, [1, 2, 3]), ({"subject_to": "gb < 4"}, [3, 2])])
def test_front_comes_first_without_rule(best: Any, expected: list[int], tmp_path: Path) -> None:
    """Trial 4 is behind trial 1 in both objectives, and ahead of the front's others by the first one."""
    score = {"objective": [{"metric": "acc"}, {"metric": "gb", "direction": "minimize"}]}
    points = {1: (0.9, 5.0), 2: (0.5, 3.0), 3: (0.6, 3.5), 4: (0.8, 6.0)}
    rows = [replace(finished(number), values=point, stderrs=(None, None)) for number, point in points.items()]
    found = choose_finalists(StudyFolder(path=tmp_path), config(score=score, best=best), rows)
    assert sorted(found) == sorted(expected)
    assert found[0] == (1 if best is None else 3)
