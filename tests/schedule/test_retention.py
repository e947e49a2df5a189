"""Whose checkpoints are kept, and which trials compete, where trials go on from each other."""

from __future__ import annotations

import pytest

from hpotune.config.schema.study_config import Objective
from hpotune.records.lineage import Lineage
from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import best_trials
from hpotune.schedule.retention import adapters_to_delete, checkpoints_to_delete

LOSS = [Objective(metric="loss", direction="minimize")]


def row(number: int, generation: int | None, *, parent: int | None = None, state="finished", value=None):
    line = None if generation is None else Lineage(generation=generation, generations=3, parent=parent)
    values = (float(number if value is None else value),) if state == "finished" else ()
    return TrialRow(number=number, kind="trial", state=state, params={}, values=values, lineage=line)


FIRST = [row(n, 0) for n in range(3)]
SECOND = [row(n, 1, parent=n - 3) for n in range(3, 6)]


@pytest.mark.parametrize(
    ("more", "gone"),
    [
        ([row(3, None, state="waiting")], []),
        ([*SECOND, row(6, None, state="waiting")], []),
        ([*SECOND, row(6, 2, parent=3, state="running"), row(7, None, state="waiting")], [0, 1, 2]),
        ([*SECOND, row(6, 2, parent=1, state="waiting"), row(7, None, state="waiting")], [0, 2]),
        ([*SECOND, row(6, None, state="running"), row(7, 2, parent=3, state="running")], []),
        ([row(n, 1, parent=0, state="failed") for n in (3, 4, 5)] + [row(6, 2, parent=2)], []),
        ([*SECOND, *[row(n, 2, parent=3) for n in (6, 7, 8)]], [0, 1, 2]),
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
def test_a_checkpoint_goes_when_nobody_can_go_on_from_it(more, gone):
    assert checkpoints_to_delete([*FIRST, *more]) == gone


def test_where_runs_are_whole_nothing_is_spent():
    assert checkpoints_to_delete([row(n, None) for n in range(4)]) == []


def test_only_those_of_the_highest_generation_compete():
    rows = [row(0, 0, value=0.1), row(1, 0, value=0.2), row(2, 1, value=0.5), row(3, 1, value=0.4)]
    assert [one.number for one in best_trials(LOSS, rows[:2])] == [0]
    assert [one.number for one in best_trials(LOSS, rows)] == [3]
    assert adapters_to_delete(LOSS, rows, keep=1) == [0, 1, 2]
