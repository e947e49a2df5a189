"""`status --watch`: a line a change off a terminal, its own end, and a store that does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from hpotune.errors import StoreError
from hpotune.records.jobs import JobRow
from hpotune.reporting.views.status import StudyStatus
from hpotune.reporting.watch import is_over, watch
from tests.fixtures.report_rows import NOW, failed, finished, running, status_of

Read = Callable[[], StudyStatus]
DONE = status_of([finished(n) for n in range(10)])
STARTED = status_of([finished(0), running(1)])


def reader(*answers: StudyStatus | Exception) -> Read:
    """Returns or raises these answers, one a call."""
    left = list(answers)

    def read() -> StudyStatus:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return read


def watched(*answers: StudyStatus | Exception, every_s: float = 10, as_json: bool = False) -> list[float]:
    """Watches these answers and returns the pauses between them, in seconds."""
    slept: list[float] = []
    watch(reader(*answers), every_s=every_s, as_json=as_json, sleep=slept.append, now=lambda: NOW)
    return slept


def test_each_change_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    better = status_of([finished(0), finished(1, 0.9), running(2)])
    slept = watched(STARTED, replace(STARTED, gpu_hours=99.0), better, DONE)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "12:00:00 s: running (1 of 10 finished, 1 running, 8 waiting)",
        "12:00:00 s: running (2 of 10 finished, 1 running, 7 waiting)",
        "12:00:00 s: done (10 of 10 finished)",
    ]
    assert "best so far: trial 1, acc 0.9" in lines[1]
    assert slept == [10, 10, 10]


def test_store_is_read_every_five_seconds() -> None:
    assert watched(STARTED, DONE, every_s=0.1) == [5]


def test_watch_ends_with_the_last_job() -> None:
    follow_up = JobRow(id="6_0", state="PENDING", reason="Dependency", kind="follow-up")
    assert is_over(DONE)
    assert not is_over(status_of([finished(n) for n in range(10)], [follow_up]))
    assert is_over(status_of([failed(n, "user") for n in range(6)]))
    assert not is_over(status_of([finished(0)]))


def test_silent_store_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    watched(STARTED, StoreError("the store gave an error"), STARTED, DONE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "12:00:00 the store gave an error; trying again"
    assert len(lines) == 4


def test_missing_store_is_an_error() -> None:
    with pytest.raises(StoreError):
        watched(StoreError("is not there"))


def test_ctrl_c_ends_the_watch() -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    watch(lambda: STARTED, every_s=10, sleep=interrupted, now=lambda: NOW)


def test_json_prints_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    watched(STARTED, DONE, as_json=True)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["state"] for document in documents] == ["running", "done"]


def test_terminal_shows_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    watched(STARTED, DONE)
    shown = capsys.readouterr().out
    assert "best so far: trial 0" in shown
    assert "done (10 of 10 finished)" in shown
