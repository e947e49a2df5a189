"""Which adapters and checkpoints of ended trials are deleted. Pure functions: the worker deletes the files."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from math import inf

from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import best_trials, eligible_trials


def adapters_to_delete(objectives: Sequence[Objective], rows: Sequence[TrialRow], *, keep: int) -> list[int]:
    """Numbers of ended trials that are neither among the `keep` best nor on the Pareto front; pruned ones always."""
    finished = [row for row in rows if row.state == "finished"]
    sign = -1 if objectives[0].sense == "maximize" else 1
    eligible = eligible_trials(finished)
    worst_kept = max(nsmallest(keep, (sign * row.values[0] for row in eligible)), default=-inf)
    near = [(sign * row.values[0], row.number) for row in eligible if sign * row.values[0] <= worst_kept]
    kept = {number for _, number in sorted(near)[:keep]}
    if keep and len(objectives) > 1:
        kept |= {row.number for row in best_trials(objectives, finished)}
    return [row.number for row in rows if row.decided and row.number not in kept]


def checkpoints_to_delete(rows: Sequence[TrialRow]) -> list[int]:
    """Numbers of ended trials whose checkpoints no trial will continue from: pruned ones, and old generations (pbt)."""
    return [row.number for row in rows if row.state == "stopped"] + _old_generations(rows)


def _old_generations(rows: Sequence[TrialRow]) -> list[int]:
    """Finished trials that no trial continues from, now or later; `rows` by number.

    A new trial continues one of the highest generation below its own that has finished trials. Trials are drawn about
    in the order of their numbers. The last generation but one is always kept: a larger budget, or a failure, may need
    it again.
    """
    drawn = [row for row in rows if row.lineage is not None]
    if not drawn:
        return []
    undrawn = [row for row in rows if row.kind == "trial" and row.lineage is None and row.state != "failed"]
    first = min((row.number for row in undrawn), default=None)
    lowest = max((row.generation for row in drawn if first is None or row.number < first), default=0)
    finished = [row for row in drawn if row.state == "finished" and not row.breaks]
    source = max((row.generation for row in finished if row.generation < lowest), default=0)
    parents = {row.lineage.parent for row in drawn if row.lineage and row.state in ("waiting", "running")}
    return [row.number for row in finished if row.generation < source and row.number not in parents]
