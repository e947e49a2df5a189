"""The end of `wait`: done, failed, cancelled, idle, out of time, and a store that does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from hpotune.api.stop_study import IDLE_S, outcome, wait_for_end
from hpotune.errors import HpotuneError, StoreError, WaitTimeout
from hpotune.reporting.views.status import StudyStatus
from tests.fixtures.report_rows import failed, finished, running, status_of

DONE = status_of([finished(n) for n in range(10)])
STARTED = status_of([finished(0), running(1)])
IDLE = status_of([finished(0)])


def waited(
    *answers: StudyStatus | Exception, timeout: float | None = None
) -> tuple[StudyStatus, list[float]]:
    """The status at the end of `wait`, whose last answer is repeated, and its pauses in seconds."""
    clock, slept, left = [0.0], list[float](), _repeated(answers)

    def read() -> StudyStatus:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    end = wait_for_end(
        read, timeout=timeout, every_s=10, note=NOTES.append, sleep=sleep, clock=lambda: clock[0]
    )
    return end, slept


NOTES: list[str] = []


def _repeated(answers: tuple[StudyStatus | Exception, ...]) -> Iterator[StudyStatus | Exception]:
    yield from answers
    while True:
        yield answers[-1]


def test_wait_returns_at_the_end() -> None:
    end, slept = waited(STARTED, STARTED, DONE)
    assert (end, slept, outcome(end)) == (DONE, [10, 10], "")


def test_wait_ends_after_its_timeout() -> None:
    with pytest.raises(WaitTimeout, match="has not ended after 25 s"):
        waited(STARTED, timeout=25)
    assert issubclass(WaitTimeout, HpotuneError) and issubclass(WaitTimeout, TimeoutError)  # noqa: PT018


def test_idle_study_is_not_waited_for() -> None:
    end, slept = waited(IDLE)
    assert sum(slept) == IDLE_S
    assert "9 trials are left, and no job or worker runs them" in outcome(end)


def test_short_idle_time_is_no_end() -> None:
    """Between a job and its follow-up nothing runs for a moment."""
    assert waited(IDLE, STARTED, IDLE, DONE)[0] == DONE


def test_store_without_answer_is_asked_again() -> None:
    NOTES.clear()
    assert waited(STARTED, StoreError("s: locked"), DONE)[0] == DONE
    assert NOTES == ["s: locked; trying again"]
    with pytest.raises(StoreError):
        waited(StoreError("s: locked"))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: status_of([failed(n) for n in range(6)]), "failed"),
        (lambda: replace(IDLE, state="cancelled", cancelled_by="`hpotune cancel`"), "was cancelled"),
        (lambda: replace(DONE, repeats=replace(IDLE, state="cancelled")), "was cancelled"),
    ],
)
def test_other_ends_have_a_reason(make: Callable[[], StudyStatus], text: str) -> None:
    assert text in outcome(make())
