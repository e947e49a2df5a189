"""The search leaves enough of GPU-hours and time for the repeats of its finalists."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.schedule.repeats_reserve import repeats_due, reserved_gpu_hours, reserved_s
from hpotune.schedule.stopping_criterion import stop_reason
from tests.fixtures.report_rows import NOW, attempt, config, finished


def study(*, repeats: int = 2, finalists: int = 2, **budget: Any) -> StudyConfig:
    return config(
        search={"repeats": repeats, "finalists": finalists}, budget={"trials": 10, "parallel": 2, **budget}
    )


def done(count: int) -> list[TrialRow]:
    """Trials of one hour on two GPUs; the first started two hours ago."""
    return [finished(number, attempts=(attempt(),)) for number in range(count)]


@pytest.mark.parametrize(("trials", "expected"), [(0, 0), (1, 2), (2, 4), (5, 4)])
def test_no_more_finalists_than_trials(trials: int, expected: int) -> None:
    assert repeats_due(study(), done(trials)) == expected


def test_reserve_follows_the_mean() -> None:
    assert reserved_gpu_hours(study(), done(3)) == pytest.approx(4 * 2)
    assert reserved_s(study(), done(3)) == pytest.approx(2 * 3600)
    assert reserved_s(study(finalists=3, repeats=5), done(3)) == pytest.approx(8 * 3600)


@pytest.mark.parametrize(("hours", "ends"), [(15.9, True), (16.1, False)])
def test_gpu_hours_are_kept(hours: float, ends: bool) -> None:
    """Three trials used 6 of them, one more takes 2, and the repeats 8."""
    reason = stop_reason(study(gpu_hours=hours), done(3), now=NOW)
    assert (reason is not None) == ends
    if reason is not None:
        assert reason.text.endswith("(8.00 of them are kept for the repeats)")
    assert stop_reason(study(repeats=0, gpu_hours=hours), done(3), now=NOW) is None


def test_running_trials_are_not_stopped_early() -> None:
    """`on_end: cancel` stops them only when the limit itself is reached."""
    assert stop_reason(study(gpu_hours=10), done(3), now=NOW, starting=False) is None
    until = (NOW + timedelta(hours=1)).isoformat(sep=" ")
    assert stop_reason(study(until=until), done(3), now=NOW, starting=False) is None


@pytest.mark.parametrize(("hours", "ends"), [(1.9, True), (2.1, False)])
def test_time_is_kept(hours: float, ends: bool) -> None:
    """Two at a time, the four repeats take two hours."""
    until = (NOW + timedelta(hours=hours)).isoformat(sep=" ")
    reason = stop_reason(study(until=until), done(3), now=NOW)
    assert (reason is not None) == ends
    if reason is not None:
        assert "the repeats would not end before" in reason.text
    wall = stop_reason(study(wall_time=f"{int((2 + hours) * 60)}:00"), done(3), now=NOW)
    assert (wall is not None) == ends
