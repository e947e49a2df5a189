"""What the hours of a study went into: trials that gave a score, and what was lost, by cause."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import Attempt, Span, TrialRow
from hpotune.schedule.gpu_hours import gpus_per_job

Use = Literal["finished", "pruned", "running", "baseline", "failed", "interrupted", "start", "idle"]
_LOST: tuple[Use, ...] = ("failed", "interrupted", "start", "idle")


@dataclass(frozen=True, kw_only=True, slots=True)
class HoursUsed:
    """Hours of one use."""

    use: Use
    cause: str
    """Of a failure or an interruption; else empty."""
    hours: float
    """GPU-hours; hours of workers in a study without GPUs."""
    count: int
    """Trials, attempts, or spans."""

    @property
    def lost(self) -> bool:
        """Whether these hours gave no score."""
        return self.use in _LOST


@dataclass(frozen=True, kw_only=True, slots=True)
class CostView:
    """The hours of a study by their use."""

    unit: Literal["GPU-hours", "worker hours"]
    uses: tuple[HoursUsed, ...]
    """What was used first, then what was lost."""
    wall_s: float | None
    """From the start of the first attempt to the end of the last one; None before the first."""

    @property
    def total(self) -> float:
        """All hours."""
        return sum(one.hours for one in self.uses)

    @property
    def lost(self) -> float:
        """Hours that gave no score."""
        return sum(one.hours for one in self.uses if one.lost)


def cost_view(
    config: StudyConfig, rows: Sequence[TrialRow], spans: Sequence[Span], *, now: datetime
) -> CostView:
    """The hours of all attempts, and those in which jobs started or waited for other trials."""
    gpus = gpus_per_job(config)
    found: dict[tuple[Use, str], tuple[float, int]] = {}
    for use, cause, seconds, held in (*_of_attempts(rows, gpus, now=now), *_of_jobs(spans, gpus)):
        hours, count = found.get((use, cause), (0.0, 0))
        found[use, cause] = hours + seconds / 3600 * (held if gpus else 1), count + 1
    order = ("finished", "pruned", "baseline", "running", *_LOST)
    uses = [
        HoursUsed(use=use, cause=cause, hours=round(hours, 6), count=count)
        for (use, cause), (hours, count) in found.items()
    ]
    return CostView(
        unit="GPU-hours" if gpus else "worker hours",
        uses=tuple(sorted(uses, key=lambda one: (order.index(one.use), -one.hours))),
        wall_s=_wall_s(rows, now=now),
    )


def _of_attempts(
    rows: Sequence[TrialRow], gpus: int, *, now: datetime
) -> Iterator[tuple[Use, str, float, int]]:
    """Use, cause, seconds and GPUs of each attempt; one that was interrupted is lost from its checkpoint on."""
    for row in rows:
        kept: Use = (
            "baseline" if row.kind == "baseline" else "pruned" if row.state == "stopped" else "finished"
        )
        for attempt in row.attempts:
            if attempt.succeeded:
                yield kept, "", attempt.seconds, attempt.gpus
            elif attempt.outcome == "failed":
                yield "failed", attempt.cause or "unknown", attempt.seconds, attempt.gpus
            else:
                lost_s = _after_checkpoint_s(attempt)
                yield "interrupted", attempt.cause or "on request", lost_s, attempt.gpus
                yield kept, "", attempt.seconds - lost_s, attempt.gpus
        if row.state == "running" and row.start is not None:
            yield "running", "", max(0.0, now.timestamp() - row.start), gpus


def _after_checkpoint_s(attempt: Attempt) -> float:
    if attempt.checkpoint is None:
        return attempt.seconds
    return min(attempt.seconds, max(0.0, attempt.end - attempt.checkpoint))


def _of_jobs(spans: Sequence[Span], gpus: int) -> Iterator[tuple[Use, str, float, int]]:
    for span in spans:
        if span.phase == "start" and span.trial is None:
            yield "start", "", max(0.0, span.end - span.start), gpus
        elif span.phase == "idle":
            yield "idle", "", max(0.0, span.end - span.start), gpus


def _wall_s(rows: Sequence[TrialRow], *, now: datetime) -> float | None:
    attempts = [attempt for row in rows for attempt in row.attempts]
    running = [row.start for row in rows if row.state == "running" and row.start is not None]
    starts = [attempt.start for attempt in attempts] + running
    if not starts:
        return None
    end = now.timestamp() if running else max(attempt.end for attempt in attempts)
    return max(0.0, end - min(starts))
