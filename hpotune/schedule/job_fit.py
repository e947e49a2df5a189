"""How long a trial, or its way to the next rung, will take, and whether that fits into what is left of a job."""

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
"""The share of finished trials that a forecast covers: the longest of many would keep workers from the last hour."""
LAST = 1000
"""Finished trials that a forecast looks at."""
FRESH = 0.8
"""The share of its time that a job must have left to count as just begun: node preparation may take minutes."""
MARGIN_S = 30
"""Slurm looks at time limits every 30 s."""


def expected_s(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    kind: Literal["baseline", "trial"] = "trial",
    *,
    rung: int | None = None,
) -> float | None:
    """Seconds a turn takes: of the last ended ones the SAFE quantile, else what `plan` says, else None.

    A turn is a trial, or with rungs the way to one of them; no `rung`: to the one that takes longest.
    """
    ladder = config.search.ladder
    if ladder is not None and kind == "trial":
        which = range(len(ladder)) if rung is None else (rung,)
        known = [s for one in which if (s := _turn_s(config, ladder, rows, one)) is not None]
        return max(known, default=None)
    ended = (row for row in reversed(rows) if row.state == "finished" and row.kind == kind and row.attempts)
    took = [row.seconds for row in islice(ended, LAST)]
    if took:
        return _safe(took)
    return None if config.plan.trial_s is None else config.plan.load_s + config.plan.trial_s


def _turn_s(config: StudyConfig, ladder: Ladder, rows: Sequence[TrialRow], rung: int) -> float | None:
    """Seconds to a rung from the one before; of one that none has reached its share of what `plan` says."""
    ended = (row for row in reversed(rows) if any(one.rung == rung for one in row.rung_scores))
    took = [_seconds_at(row, rung) for row in islice(ended, LAST)]
    if took or config.plan.trial_s is None:
        return _safe(took) if took else None
    before = ladder.share(rung - 1) if rung else 0.0
    return config.plan.load_s + config.plan.trial_s * (ladder.share(rung) - before or 1.0)


def _seconds_at(row: TrialRow, rung: int) -> float:
    """What the attempts to reach a rung took together."""
    return sum([attempt.seconds for attempt in row.attempts if attempt.rung == rung])


def _safe(took: Sequence[float]) -> float:
    return sorted(took)[math.ceil(SAFE * len(took)) - 1]


def fits(config: StudyConfig, rows: Sequence[TrialRow], row: TrialRow, *, left_s: float | None) -> bool:
    """Whether a worker with so many seconds left should take a trial.

    One that does not fit is still taken by a job that has just begun: no other has more time, so it checkpoints there,
    and the next one goes on.
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
