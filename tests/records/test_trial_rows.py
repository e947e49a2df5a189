"""What is kept of leading rows equals what a pass over all of them finds, for looks in any order."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hpotune.records.trial import TrialRow
from hpotune.records.trial_rows import LeadingFacts, TrialRows, matching, state_counts
from hpotune.schedule.failures import bad_nodes
from hpotune.schedule.retention import AdapterRows, adapters_to_delete, checkpoints_to_delete
from tests.fixtures.report_rows import attempt, config, finished

STATES = ("finished", "finished", "finished", "failed", "stopped")


def rows_of_a_study(rng: random.Random, count: int) -> list[TrialRow]:
    """Ended trials of all kinds on three nodes, some of which break what runs there."""
    found = []
    for number in range(count):
        state, host = rng.choice(STATES), f"n{rng.randrange(3)}"
        cause = "node" if state == "failed" and rng.random() < 0.2 else "user" if state == "failed" else None
        ended = attempt("failed" if cause else "finished", host=host, cause=cause, message="m")
        row = TrialRow(
            number=number, kind="trial", state=state, params={}, attempts=(ended,) * rng.choice((1, 1, 2)),
            values=() if state == "failed" else (rng.random(),), stderrs=() if state == "failed" else (None,),
        )  # fmt: skip
        found.append(row)
    return found


def is_failed(row: TrialRow) -> bool:
    return row.state == "failed"


@pytest.mark.parametrize("seed", range(3))
def test_kept_facts_equal_those_of_all(seed: int) -> None:
    rng = random.Random(seed)
    every, facts, adapters = rows_of_a_study(rng, 60), LeadingFacts(), AdapterRows()
    objectives = config().score.objective
    gone: set[int] = set()
    gone_by_all: set[int] = set()
    for _ in range(40):
        size = rng.randint(1, len(every))
        plain = every[:size]
        looked = TrialRows(plain, leading=rng.randint(0, size), facts=facts)
        assert matching(looked, is_failed) == [row for row in plain if row.state == "failed"]
        assert state_counts(looked) == Counter(row.state for row in plain)
        assert bad_nodes(looked) == bad_nodes(plain)
        assert checkpoints_to_delete(looked) == checkpoints_to_delete(plain)
        gone.update(adapters_to_delete(objectives, adapters.left(looked, gone), None, keep=2))
        left = [row for row in plain if row.number not in gone_by_all]
        gone_by_all.update(adapters_to_delete(objectives, left, None, keep=2))
        assert gone == gone_by_all


def test_leading_rows_are_read_once() -> None:
    asked = []

    def ask(row: TrialRow) -> bool:
        asked.append(row.number)
        return True

    facts = LeadingFacts()
    for leading in (2, 3, 3):
        matching(TrialRows([finished(number) for number in range(4)], leading=leading, facts=facts), ask)
    assert asked == [0, 1, 2, 3, 2, 3, 3]
