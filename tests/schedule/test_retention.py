"""Which adapters and checkpoints are deleted."""

from __future__ import annotations

import pytest

from hpotune.config.schema.study_config import Objective
from hpotune.records.lineage import Lineage
from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import best_trials
from hpotune.schedule.retention import adapters_to_delete, checkpoints_to_delete
from tests.fixtures.study_rows import DOWN, UP, row, rows

LOSS = [Objective(metric="loss", direction="minimize")]


def member(number: int, generation: int | None, *, parent: int | None = None, state="finished", value=None):
    line = None if generation is None else Lineage(generation=generation, generations=3, parent=parent)
    values = (float(number if value is None else value),) if state == "finished" else ()
    return TrialRow(number=number, kind="trial", state=state, params={}, values=values, lineage=line)


FIRST = [member(n, 0) for n in range(3)]
SECOND = [member(n, 1, parent=n - 3) for n in range(3, 6)]


@pytest.mark.parametrize(
    ("more", "gone"),
    [
        ([member(3, None, state="waiting")], []),
        ([*SECOND, member(6, None, state="waiting")], []),
        ([*SECOND, member(6, 2, parent=3, state="running"), member(7, None, state="waiting")], [0, 1, 2]),
        ([*SECOND, member(6, 2, parent=1, state="waiting"), member(7, None, state="waiting")], [0, 2]),
        ([*SECOND, member(6, None, state="running"), member(7, 2, parent=3, state="running")], []),
        ([member(n, 1, parent=0, state="failed") for n in (3, 4, 5)] + [member(6, 2, parent=2)], []),
        ([*SECOND, *[member(n, 2, parent=3) for n in (6, 7, 8)]], [0, 1, 2]),
    ],
    ids=[
        "nobody has followed yet",
        "the next may follow either of two",
        "the next generation has started",
        "one still begins with an old one",
        "an earlier one is not drawn yet",
        "a whole generation failed",
        "at the end the last but one stays",
    ],
)
def test_unneeded_checkpoints_are_deleted(more, gone):
    assert checkpoints_to_delete([*FIRST, *more]) == gone


def test_whole_runs_delete_no_checkpoints():
    assert checkpoints_to_delete([member(n, None) for n in range(4)]) == []


def test_best_is_of_highest_generation():
    rows = [
        member(0, 0, value=0.1),
        member(1, 0, value=0.2),
        member(2, 1, value=0.5),
        member(3, 1, value=0.4),
    ]
    assert [one.number for one in best_trials(LOSS, rows[:2], None)] == [0]
    assert [one.number for one in best_trials(LOSS, rows, None)] == [3]
    assert adapters_to_delete(LOSS, rows, None, keep=1) == [0, 1, 2]


def test_only_best_adapters_are_kept():
    tried = [row(n, "finished", value=value) for n, value in enumerate((2.0, 3.0, 1.0, 4.0))]
    assert adapters_to_delete(DOWN, tried, None, keep=2) == [1, 3]


def test_adapters_on_front_are_kept():
    points = [(2.0, 0.2), (2.0, 3.0), (0.5, 0.5)]
    tried = [row(n, "finished", value=point) for n, point in enumerate(points)]
    assert adapters_to_delete([*DOWN, *UP], tried, None, keep=1) == [0]


def test_keep_zero_deletes_all_adapters():
    assert adapters_to_delete(DOWN, rows("ff"), None, keep=0) == [0, 1]
