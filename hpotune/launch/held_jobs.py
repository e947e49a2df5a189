"""Jobs that Slurm itself holds after it could not start them: cancelled, so that others replace them.

Slurm holds a job whose launch failed on its node (`launch failed requeued held`), or that was requeued too often
(JobHoldMaxRequeue), until somebody releases it; what depends on it waits too. A job that a person holds is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hpotune.errors import ClusterError
from hpotune.records.jobs import JobRow
from hpotune.slurm.study_jobs import cancel_held
from hpotune.workspace.folder import StudyFolder

_REPLACEABLE = ("worker", "follow-up")
"""On a rehearsal workers depend (afterok), which Slurm would never start once it is cancelled."""


def replace_held(
    folder: StudyFolder, rows: Sequence[JobRow], *, ask: Callable[[], list[JobRow]]
) -> tuple[list[JobRow], str]:
    """The jobs once those that Slurm holds are cancelled, and a warning that says so; empty where there are none.

    Slurm is asked again afterwards: one that somebody has released meanwhile runs, and is not replaced too.
    """
    held = [row for row in rows if row.held_by_slurm and row.kind in _REPLACEABLE]
    if not held:
        return list(rows), ""
    names = ", ".join(row.id for row in held)
    try:
        cancel_held(folder, [row.id for row in held])
        found = ask()
    except (ClusterError, OSError) as error:
        text = f"Slurm holds job {names} after failed launches, and it cannot be replaced now: {error}"
        return list(rows), f"{text}; `scontrol release {' '.join(row.id for row in held)}` starts it"
    reasons = {row.id: row.reason for row in held}
    after = [_not_a_users(row, reasons[row.id]) if row.id in reasons else row for row in found]
    gone = ", ".join(row.id for row in after if row.id in reasons and not row.active)
    return (
        after,
        f"Slurm held job {gone} after failed launches: cancelled, others replace it" if gone else "",
    )


def _not_a_users(row: JobRow, reason: str) -> JobRow:
    """A job that was cancelled here, as one that is gone: nobody cancelled the study or its trial."""
    return row if row.active else replace(row, state="GONE", reason=f"'{reason}'")


def only_held_left(jobs: Sequence[JobRow], *, beside: str) -> bool:
    """Whether Slurm holds some workers and none but `beside` runs or waits: follow-ups wait for the held ones."""
    workers = [row for row in jobs if row.kind == "worker" and row.active and row.id != beside]
    return bool(workers) and all(row.held_by_slurm for row in workers)
