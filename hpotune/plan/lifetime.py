"""How long a trial will take, and whether that fits into what is left of a job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Literal

from hpotune.study.config import StudyConfig
from hpotune.study.trial import TrialRow

SAFE = 0.9
"""The share of finished trials that a forecast covers: the longest of many would keep workers from the last hour."""
LAST = 1000
"""Finished trials that a forecast looks at."""
FRESH = 0.8
"""The share of its time that a job must have left to count as just begun: node preparation may take minutes."""
MARGIN_S = 30
"""Slurm looks at time limits every 30 s."""


def expected_s(
    config: StudyConfig, rows: Sequence[TrialRow], kind: Literal["baseline", "trial"] = "trial"
) -> float | None:
    """Seconds a trial takes: of the last finished ones the SAFE quantile, else what `plan` says, else None."""
    ended = (row for row in reversed(rows) if row.state == "finished" and row.kind == kind and row.attempts)
    took = sorted(row.seconds for row in islice(ended, LAST))
    if took:
        return took[math.ceil(SAFE * len(took)) - 1]
    return None if config.plan.trial_s is None else config.plan.load_s + config.plan.trial_s


def fits(config: StudyConfig, rows: Sequence[TrialRow], row: TrialRow, *, left_s: float | None) -> bool:
    """Whether a worker with so many seconds left should take a trial.

    One that does not fit is still taken by a job that has just begun: no other has more time, so it checkpoints there,
    and the next one goes on.
    """
    if left_s is None:
        return True
    expected = expected_s(config, rows, row.kind)
    if expected is None:
        return left_s > MARGIN_S
    rest = max(0.0, expected - row.seconds) if row.attempts else expected
    return rest <= left_s - MARGIN_S or left_s >= FRESH * config.resources.working_s > 0
