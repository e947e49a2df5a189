"""Whose checkpoints nobody will go on from any more. Trials are drawn about in their order (pbt)."""

from __future__ import annotations

from collections.abc import Sequence

from hpotune.records.trial import TrialRow


def spent(rows: Sequence[TrialRow]) -> list[int]:
    """Numbers of ended trials whose checkpoints no trial goes on from, now or later; `rows` by number.

    A new trial follows one of the highest generation below its own that has finished ones. Those of the last but one
    are never spent: a larger budget, or a failure, may still ask for them.
    """
    drawn = [row for row in rows if row.lineage is not None]
    undrawn = [row for row in rows if row.kind == "trial" and row.lineage is None and row.state != "failed"]
    first = min((row.number for row in undrawn), default=None)
    lowest = max((row.generation for row in drawn if first is None or row.number < first), default=0)
    done = [row for row in drawn if row.state == "finished" and not row.breaks]
    source = max((row.generation for row in done if row.generation < lowest), default=0)
    parents = {row.lineage.parent for row in drawn if row.lineage and row.state in ("waiting", "running")}
    return [row.number for row in done if row.generation < source and row.number not in parents]
