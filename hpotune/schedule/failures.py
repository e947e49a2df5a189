"""What failures have in common: a broken node, or a study that would fail for ever."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from operator import attrgetter

from hpotune.config.schema.execution import Cause
from hpotune.records.trial import LOCAL, Attempt, Failure, TrialRow

ALIKE = 3
"""Failures in a row on one node, in the same words, while other nodes do well: the node is broken."""
_OF_THE_POINT = ("nan", "oom")
"""Causes that lie in the point: the next one may do well."""
_TAKEN = ("timeout", "preempted")
_ELSEWHERE_TOO = (*_OF_THE_POINT, *_TAKEN, "store")
UNCOUNTED: tuple[Cause, ...] = ("nan", "node", "preempted")
"""Failures that say nothing against the study: `budget.max_failed` leaves them out."""


def alike(message: str) -> str:
    """A message without its numbers and addresses, so that two of one kind are equal."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", message.lower())[:120]


def held_against(rows: Iterable[TrialRow]) -> list[Cause]:
    """The cause of every failure that nobody has forgiven."""
    return [
        row.failure.cause if row.failure else "unknown"
        for row in rows
        if row.state == "failed" and not row.forgiven
    ]


def equal_failures(rows: Iterable[TrialRow], *, limit: int) -> Failure | None:
    """The failure that the last `limit` failed trials have in common; None where they differ or one has finished since.

    Failures of points (nan, oom), preempted and retried trials are left out. None also while a failed trial is retried.
    """
    rows = list(rows)
    if any(row.retry_of is not None and row.state in ("waiting", "running") for row in rows):
        return None
    failed = sorted(
        (r for r in rows if r.state == "failed" and r.failure and not r.forgiven and _of_the_study(r)),
        key=lambda r: r.end or 0.0,
    )[-limit:]
    if len(failed) < limit or failed[0].failure is None:
        return None
    first = failed[0].failure
    if any(
        r.failure and (r.failure.cause, alike(r.failure.message)) != (first.cause, alike(first.message))
        for r in failed
    ):
        return None
    since = failed[0].end or 0.0
    if any(r.state == "finished" and (r.end or 0.0) > since for r in rows):
        return None
    if any(a.outcome == "rung" and a.end > since for r in rows for a in r.attempts):
        return None
    return first


def _of_the_study(row: TrialRow) -> bool:
    return row.failure is not None and row.failure.cause not in (*_OF_THE_POINT, "preempted")


def bad_nodes(rows: Iterable[TrialRow]) -> dict[str, str]:
    """Nodes that break what runs on them, and why it is thought so; until a trial has finished there since.

    A node that died is Slurm's to see; here count ends that workers told themselves.
    """
    rows = list(rows)
    troubled = [row for row in rows if row.state != "finished" or len(row.attempts) > 1]
    if not any(_of_the_node(attempt) for row in troubled for attempt in row.attempts):
        return {}
    told = [a for row in rows for a in row.attempts if not a.ended_by_other and a.worker.job != LOCAL]
    since: dict[str, list[Attempt]] = {}
    for attempt in sorted(told, key=attrgetter("end")):
        if attempt.succeeded:
            since.pop(attempt.worker.host, None)
        else:
            since.setdefault(attempt.worker.host, []).append(attempt)
    found = {host: _fault(host, own, told) for host, own in since.items()}
    return {host: why for host, why in found.items() if why}


def _of_the_node(attempt: Attempt) -> bool:
    """Whether it ended by something that may be its node's fault; a full disk is every node's."""
    return attempt.cause is not None and attempt.cause not in _ELSEWHERE_TOO


def _fault(host: str, since: Sequence[Attempt], ended: Sequence[Attempt]) -> str:
    """Why a node is thought broken, by its attempts since a trial finished there and all of all nodes; or empty."""
    faults = [attempt for attempt in since if attempt.cause == "node"]
    if faults:
        return faults[-1].message
    told = [attempt for attempt in since if _of_the_node(attempt)][-ALIKE:]
    if len(told) < ALIKE or len({(a.cause, alike(a.message)) for a in told}) > 1:
        return ""
    elsewhere = any(a.succeeded and a.end > told[0].start and a.worker.host != host for a in ended)
    return f"{ALIKE} trials in a row failed there alike: {told[-1].message}" if elsewhere else ""
