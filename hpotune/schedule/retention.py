"""Which adapters and checkpoints of ended trials are deleted. Pure functions: the worker deletes the files."""

from __future__ import annotations

from collections.abc import Container, Sequence
from heapq import nsmallest
from math import inf
from typing import Literal

from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.records.trial_rows import TrialRows, matching
from hpotune.schedule.best_trials import eligible_trials, pareto_trials
from hpotune.schedule.ranking import ranked


def adapters_to_delete(
    objectives: Sequence[Objective], rows: Sequence[TrialRow], rule: BestRule | None, *, keep: int
) -> list[int]:
    """Numbers of ended trials that are neither among the `keep` best nor on the Pareto front; pruned ones always.

    Where fewer than `keep` trials satisfy the rule of the study file, the best by the first objective are kept too:
    the rule may be edited later.
    """
    finished = [row for row in rows if row.state == "finished"]
    sign = -1 if objectives[0].sense == "maximize" else 1
    eligible = eligible_trials(finished)
    by_rule = {row.number for row in ranked(objectives, eligible, rule)[:keep]} if rule is not None else set()
    keep -= len(by_rule)
    eligible = [row for row in eligible if row.number not in by_rule]
    worst_kept = max(nsmallest(keep, (sign * row.values[0] for row in eligible)), default=-inf)
    near = [(sign * row.values[0], row.number) for row in eligible if sign * row.values[0] <= worst_kept]
    kept = by_rule | {number for _, number in sorted(near)[:keep]}
    if kept and len(objectives) > 1:
        kept |= {row.number for row in pareto_trials(objectives, finished)}
    return [row.number for row in rows if row.decided and row.number not in kept]


class AdapterRows:
    """The trials whose adapters may still exist, kept from look to look.

    A trial that is worse than `keep` others stays so: of thousands that have ended only the rest is compared again.
    """

    def __init__(self) -> None:
        self._left: list[TrialRow] = []
        """Of the leading rows."""
        self._leading = 0

    def left(self, rows: Sequence[TrialRow], deleted: Container[int]) -> list[TrialRow]:
        """The rows of all trials but those whose adapters are deleted, and leading ones that never had any."""
        leading = rows.leading if isinstance(rows, TrialRows) else 0
        if leading < self._leading:
            return [row for row in rows if row.number not in deleted]
        new = [row for row in rows[self._leading : leading] if row.decided]
        self._left = [row for row in (*self._left, *new) if row.number not in deleted]
        self._leading = leading
        return [*self._left, *(row for row in rows[leading:] if row.number not in deleted)]


def adapters_kept(config: StudyConfig) -> int | Literal["all"]:
    """How many of the best trials keep their adapters: with repeats those of all finalists, any of which may win."""
    keep, search = config.keep.best, config.search
    if keep == "all" or keep == 0 or not search.repeats:
        return keep
    return max(keep, search.finalists)


def checkpoints_to_delete(rows: Sequence[TrialRow]) -> list[int]:
    """Numbers of ended trials whose checkpoints no trial will continue from: pruned ones, and old generations (pbt)."""
    return [row.number for row in matching(rows, _is_pruned)] + _old_generations(rows)


def _is_pruned(row: TrialRow) -> bool:
    return row.state == "stopped"


def _is_drawn(row: TrialRow) -> bool:
    return row.lineage is not None


def _old_generations(rows: Sequence[TrialRow]) -> list[int]:
    """Finished trials that no trial continues from, now or later; `rows` by number.

    A new trial continues one of the highest generation below its own that has finished trials. Trials are drawn about
    in the order of their numbers. The last generation but one is always kept: a larger budget, or a failure, may need
    it again.
    """
    drawn = matching(rows, _is_drawn)
    if not drawn:
        return []
    undrawn = [row for row in rows if row.kind == "trial" and row.lineage is None and row.state != "failed"]
    first = min((row.number for row in undrawn), default=None)
    lowest = max((row.generation for row in drawn if first is None or row.number < first), default=0)
    finished = [row for row in drawn if row.state == "finished" and not row.breaks]
    source = max((row.generation for row in finished if row.generation < lowest), default=0)
    parents = {row.lineage.parent for row in drawn if row.lineage and row.state in ("waiting", "running")}
    return [row.number for row in finished if row.generation < source and row.number not in parents]
