"""`status --watch` off a terminal: a line a change, an end of its own, and a store that is away is borne."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from hpotune.errors import StoreError
from hpotune.records.jobs import JobRow
from hpotune.report.watch import over, watch
from tests.report.test_status_table import failed, finished, running, told

NOW = datetime(2026, 11, 20, 12)
Look = Callable[[], dict[str, Any]]


def looks(*answers: dict[str, Any] | Exception) -> tuple[Look, list[float]]:
    """A reader of these answers in turn, and what was slept between."""
    left, slept = list(answers), []

    def read() -> dict[str, Any]:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return read, slept


def watched(*answers: dict[str, Any] | Exception, every_s: float = 10, as_json: bool = False) -> list[float]:
    read, slept = looks(*answers)
    watch(read, every_s=every_s, as_json=as_json, sleep=slept.append, now=lambda: NOW)
    return slept


DONE = told([finished(n) for n in range(10)])
BEGUN = told([finished(0), running(1)])


def test_a_line_is_printed_when_something_changed_and_only_then(capsys: pytest.CaptureFixture[str]) -> None:
    slept = watched(
        BEGUN, BEGUN | {"gpu_hours": 99.0}, told([finished(0), finished(1, 0.9), running(2)]), DONE
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "12:00:00 s: running (1 of 10 finished, 1 running, 8 waiting)",
        "12:00:00 s: running (2 of 10 finished, 1 running, 7 waiting)",
        "12:00:00 s: done (10 of 10 finished)",
    ]
    assert "best so far: trial 1, acc 0.9" in lines[1]
    assert slept == [10, 10, 10]


def test_the_store_is_not_asked_more_often_than_every_five_seconds() -> None:
    assert watched(BEGUN, DONE, every_s=0.1) == [5]


def test_a_study_is_watched_until_nothing_of_it_runs_any_more() -> None:
    step = JobRow(id="6_0", state="PENDING", reason="Dependency", kind="follow-up")
    assert over(DONE)
    assert not over(told([finished(n) for n in range(10)], [step]))
    assert over(told([failed(n, "user") for n in range(6)]))
    assert not over(told([finished(0)]))


def test_a_store_that_is_away_is_told_and_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    watched(BEGUN, StoreError("the store gave an error"), BEGUN, DONE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "12:00:00 the store gave an error; asking again"
    assert len(lines) == 4


def test_a_store_that_was_never_there_is_an_error() -> None:
    with pytest.raises(StoreError):
        watched(StoreError("is not there"))


def test_ctrl_c_leaves_in_peace() -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    watch(lambda: BEGUN, every_s=10, sleep=interrupted, now=lambda: NOW)


def test_in_json_each_change_is_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    watched(BEGUN, DONE, as_json=True)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["state"] for document in documents] == ["running", "done"]


def test_on_a_terminal_the_board_is_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    watched(BEGUN, DONE)
    said = capsys.readouterr().out
    assert "best so far: trial 0" in said
    assert "done (10 of 10 finished)" in said
