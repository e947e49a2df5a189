"""How a trial's result is recorded in the storage, and the line about it in the job's log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.config.training_method import ADAPTER_FOLDER, delete_folders
from hpotune.records.trial import Cause, Failure, TrialResult
from hpotune.schedule.promotion import is_significantly_worse
from hpotune.storage import Claim, TrialQueue, newest_write
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.item_file import read_items

if TYPE_CHECKING:
    import numpy as np


OutcomeKind = Literal["finished", "rung", "pruned", "paused", "failed", "retried", "lost"]
"""rung: it waits for promotion. paused: it waits for the next worker. retried: it failed and waits for another
attempt. lost: nothing was recorded, since another worker has claimed or ended the trial."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedOutcome:
    """What was recorded of one attempt at a trial."""

    kind: OutcomeKind
    result: TrialResult
    failure: Failure | None = None
    """Why the attempt gave no value."""


def record_outcome(
    queue: TrialQueue, folder: StudyFolder, claim: Claim, result: TrialResult, *, job_loss: Failure | None
) -> RecordedOutcome:
    """Record an attempt's result. The large files of a trial that has failed for good are deleted.

    `job_loss`: why the cluster took the job of a trial that paused; None: someone asked for the end.
    """
    own = folder.trial(claim.row.number)
    checkpoint = newest_write(own / "checkpoint")
    if result.state == "finished":
        return RecordedOutcome(kind=_record_values(queue, folder, claim, result, checkpoint), result=result)
    failure = result.failure or job_loss
    if failure is None:
        queue.pause(claim.trial_id, owner=claim.row.worker, checkpoint=checkpoint)
        return RecordedOutcome(kind="paused", result=result)
    recorded = queue.record_failure(
        claim.trial_id,
        failure,
        metrics=result.metrics,
        owner=claim.row.worker,
        checkpoint=checkpoint,
        # Slurm itself takes a node that is down out of service: that says nothing against it once it is back
        ended_by_other=failure is job_loss and failure.cause == "node",
    )
    if recorded == "failed":
        for kind in ("checkpoint", ADAPTER_FOLDER):
            delete_folders(own, kind)
    kinds: dict[str, OutcomeKind] = {"failed": "failed", "again": "retried", "": "lost"}
    return RecordedOutcome(kind=kinds[recorded], result=result, failure=failure)


def _record_values(
    queue: TrialQueue, folder: StudyFolder, claim: Claim, result: TrialResult, checkpoint: float | None
) -> OutcomeKind:
    if result.rung is None:
        return "finished" if queue.complete(claim.trial_id, result) else "lost"
    recorded = queue.record_rung(
        claim.trial_id,
        result,
        owner=claim.row.worker,
        checkpoint=checkpoint,
        is_worse=partial(items_significantly_worse, folder, queue.config),
    )
    kinds: dict[str, OutcomeKind] = {"finished": "finished", "rung": "rung", "stopped": "pruned", "": "lost"}
    return kinds[recorded]


def error_cause(error: Exception) -> Cause:
    """The cause of a trial that an error in the worker ended: a point that breaks a rule, a full disk."""
    if isinstance(error, ValueError):
        return "user"
    return "store" if isinstance(error, OSError) else "unknown"


def outcome_text(outcome: RecordedOutcome) -> str:
    """The outcome in words, after `trial N`."""
    result, failure = outcome.result, outcome.failure
    rung = "finished" if result.rung is None else f"reached rung {result.rung + 1}"
    words = {
        "finished": "finished",
        "rung": f"{rung} and waits for promotion",
        "pruned": f"{rung} and was pruned there",
        "paused": "paused; the next worker continues it",
        "failed": "failed",
        "retried": "failed and waits for another attempt",
        "lost": f"{rung if failure is None else 'failed'}, but another worker has claimed or ended it",
    }[outcome.kind]
    if outcome.kind == "paused":
        return words
    if failure is not None:
        return f"{words} ({failure.cause}): {failure.message}"
    if result.race is not None:
        words = f"ended early, on {result.race.scored_items} of {result.race.items} items"
    left_out = ", ".join(f"{key} ({what})" for key, what in result.left_out.items())
    return f"{words}: {result.values}" + (
        f"; warning: not recorded, since no number: {left_out}" if left_out else ""
    )


def items_significantly_worse(
    folder: StudyFolder, config: StudyConfig, number: int, other: int, rung: int
) -> bool:
    """Whether a trial's items at a rung are significantly worse than another trial's; False where none were stored."""
    ladder, objective = config.search.ladder, config.score.objective[0]
    assert ladder is not None, "only studies with rungs compare items"
    own, others = (_items(folder.trial(n) / f"items-{rung}.npz", objective) for n in (number, other))
    if own is None or others is None or len(own) != len(others):
        return False
    sign = 1.0 if objective.sense == "maximize" else -1.0
    return is_significantly_worse((sign * (own - others)).tolist(), threshold=ladder.options["p_threshold"])


def _items(file: Path, objective: Objective) -> np.ndarray | None:
    """The objective's metric item by item, in the order of the documents. Shape: (items,)."""
    found = read_items(file, [f"{objective.task}/{objective.metric}"])
    return found[0] if found is not None else None
