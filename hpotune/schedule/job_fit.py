"""Expected time of a trial, or of its stage up to the next rung, and whether it fits into the rest of a job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Literal

from hpotune.config.schema.rungs import Ladder
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.schedule.promotion import next_rung

SAFE = 0.9
"""Quantile of the finished trials' times that is expected: the longest one would leave the last hour of jobs unused."""
LAST = 200
"""Number of the last finished trials that the expectation is made from."""
FRESH = 0.8
"""Share of its time that a job that has just started still has: node preparation may take minutes."""
MARGIN_S = 30
"""Seconds kept free at the end of a job: Slurm checks time limits every 30 s."""


def expected_s(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    kind: Literal["baseline", "trial"] = "trial",
    *,
    rung: int | None = None,
) -> float | None:
    """Expected seconds of a trial: the SAFE quantile of the last ended ones, else from `plan` of the file, else None.

    With rungs: of the stage up to `rung`; None: of the longest stage.
    """
    ladder = config.search.ladder
    if ladder is not None and kind == "trial":
        which = range(len(ladder)) if rung is None else (rung,)
        known = [s for one in which if (s := _stage_s(config, ladder, rows, one)) is not None]
        return max(known, default=None)
    ended = (row for row in reversed(rows) if row.state == "finished" and row.kind == kind and row.attempts)
    took = [row.seconds for row in islice(ended, LAST)]
    if took:
        return _safe(
            [seconds for seconds in took if seconds > 0] or took
        )  # 0: the clock was set back meanwhile
    return None if config.plan.trial_s is None else config.plan.load_s + config.plan.trial_s


def _stage_s(config: StudyConfig, ladder: Ladder, rows: Sequence[TrialRow], rung: int) -> float | None:
    """Expected seconds from the rung before to `rung`; where no trial was scored there its share of `plan.trial_s`."""
    ended = (row for row in reversed(rows) if any(one.rung == rung for one in row.rung_scores))
    took = [_seconds_at(row, rung) for row in islice(ended, LAST)]
    if took or config.plan.trial_s is None:
        return _safe(took) if took else None
    before = ladder.share(rung - 1) if rung else 0.0
    return config.plan.load_s + config.plan.trial_s * (ladder.share(rung) - before or 1.0)


def _seconds_at(row: TrialRow, rung: int) -> float:
    """Seconds of all attempts at the stage up to a rung."""
    return sum([attempt.seconds for attempt in row.attempts if attempt.rung == rung])


def _safe(took: Sequence[float]) -> float:
    return sorted(took)[math.ceil(SAFE * len(took)) - 1]


def fits(config: StudyConfig, rows: Sequence[TrialRow], row: TrialRow, *, left_s: float | None) -> bool:
    """Whether a worker should claim a trial with `left_s` seconds left of its job; None: no limit.

    A job that has just started claims it even if it does not fit: no other job has more time, so the trial writes a
    checkpoint there and the next job continues it.
    """
    if left_s is None:
        return True
    ladder = config.search.ladder
    rung = next_rung(ladder, row) if ladder is not None and row.kind == "trial" else None
    expected = expected_s(config, rows, row.kind, rung=rung)
    if expected is None:
        return left_s > MARGIN_S
    had = row.seconds if rung is None else _seconds_at(row, rung)
    rest = max(0.0, expected - had) if row.attempts else expected
    return rest <= left_s - MARGIN_S or left_s >= FRESH * config.resources.working_s > 0
