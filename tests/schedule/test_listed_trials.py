"""When a derived study is over: each position once, failures included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hpotune.config.schema.search_config import LISTED
from hpotune.records.derived_points import POSITION
from hpotune.records.trial import TrialRow
from hpotune.schedule.listed_trials import failed_positions, list_done
from hpotune.schedule.next_jobs import next_jobs
from tests.fixtures.report_rows import NOW, config, failed, finished, paused, running

LIST: dict[str, Any] = {
    "search": {"algorithm": LISTED},
    "budget": {"trials": 3, "parallel": 2, "max_failed": 16, "max_equal_failures": 16},
}


def at(row: TrialRow, position: int) -> TrialRow:
    return replace(row, params={POSITION: position})


def test_failed_position_is_not_replaced() -> None:
    rows = [at(finished(0), 0), at(failed(1), 1), at(finished(2), 2)]
    reason = list_done(config(**LIST), rows)
    assert reason is not None
    assert (reason.kind, reason.text) == ("list_done", "2 trials finished, 1 failed")
    waiting = TrialRow(number=3, kind="trial", state="waiting", params={})
    assert next_jobs(config(**LIST), [*rows, waiting], [], now=NOW) == []
    assert failed_positions(rows) == {1}


def test_interrupted_position_is_continued() -> None:
    rows = [at(finished(0), 0), at(failed(1), 1), at(paused(2), 2)]
    assert list_done(config(**LIST), rows) is None
    assert next_jobs(config(**LIST), rows, [], now=NOW) != []


def test_running_position_counts_as_taken() -> None:
    rows = [at(finished(0), 0), at(failed(1), 1), at(running(2), 2)]
    assert list_done(config(**LIST), rows) is not None


def test_retried_position_is_open_again() -> None:
    again = TrialRow(number=3, kind="trial", state="waiting", params={}, retry_of=1)
    rows = [at(finished(0), 0), replace(at(failed(1), 1), forgiven=True), at(finished(2), 2), again]
    assert list_done(config(**LIST), rows) is None


def test_failure_without_point_is_ignored() -> None:
    rows = [at(finished(0), 0), at(failed(1), 1), failed(2), at(paused(3), 2)]
    assert list_done(config(**LIST), rows) is None


def test_other_studies_have_no_list() -> None:
    assert list_done(config(), [finished(0)]) is None
