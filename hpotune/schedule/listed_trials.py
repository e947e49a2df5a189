"""When a study that hpotune derived from another one is over: once each position of its list has ended or runs.

Each position is evaluated once. A trial that has failed for good, after the retries that the study's `retry` allows, is
not replaced by another attempt at the same point: the failure is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.derived_points import POSITION
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import TrialRow

_BASELINE = "baseline"


def list_done(config: StudyConfig, rows: Sequence[TrialRow]) -> StopReason | None:
    """That no trial of a derived study is left to start; None while one is, and for other studies."""
    if not config.search.is_derived:
        return None
    taken = {_key(row) for row in rows if row.state in ("finished", "running") or _has_failed(row)}
    taken.discard(None)
    if len(taken) < config.budget.trials:
        return None
    failed = len(failed_positions(rows))
    finished = sum(row.state == "finished" for row in rows)
    return StopReason(kind="list_done", text=f"{finished} trials finished, {failed} failed")


def failed_positions(rows: Sequence[TrialRow]) -> set[object]:
    """The positions (the baseline is one) whose trial has failed for good, and that no other trial holds."""
    held = {_key(row) for row in rows if row.state != "failed"}
    return {_key(row) for row in rows if _has_failed(row)} - held - {None}


def _has_failed(row: TrialRow) -> bool:
    return row.state == "failed" and not row.forgiven


def _key(row: TrialRow) -> object:
    """The position that a trial evaluates; None for a trial without one."""
    return _BASELINE if row.kind == "baseline" else row.params.get(POSITION)
