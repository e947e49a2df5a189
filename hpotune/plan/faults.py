"""What failures have in common: a broken node, or a study that would fail for ever."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from hpotune.study.execution import Cause
from hpotune.study.trial import LOCAL, Attempt, TrialRow

ALIKE = 3
"""Failures in a row on one node, in the same words, while other nodes do well: the node is broken."""
_OF_THE_POINT = ("nan", "oom")
"""Causes that lie in the point: the next one may do well."""
_TAKEN = ("timeout", "preempted")
UNCOUNTED: tuple[Cause, ...] = ("nan", "node", "preempted")
"""Failures that say nothing against the study: `budget.max_failed` leaves them out."""


def alike(message: str) -> str:
    """A message without its numbers and addresses, so that two of one kind are equal."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", message.lower())[:120]


def equal_failures(rows: Iterable[TrialRow], *, limit: int) -> str | None:
    """Why the next trial would fail too: the last `limit` failures were one, and nothing has finished since the first.

    Forgiven ones, and those that lie in their point, are left out.
    """
    rows = list(rows)
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
    return f"{limit} trials in a row failed alike ({first.cause}: {first.message})"


def _of_the_study(row: TrialRow) -> bool:
    return row.failure is not None and row.failure.cause not in (*_OF_THE_POINT, "node", "preempted")


def bad_nodes(rows: Iterable[TrialRow]) -> dict[str, str]:
    """Nodes that break what runs on them, and why it is thought so; until a trial has finished there since.

    A node that died is Slurm's to see; here count ends that workers told themselves.
    """
    by_host: dict[str, list[Attempt]] = defaultdict(list)
    for row in rows:
        for attempt in row.attempts:
            if attempt.worker.job != LOCAL and not attempt.swept:
                by_host[attempt.worker.host].append(attempt)
    ended = {host: sorted(attempts, key=lambda a: a.end) for host, attempts in by_host.items()}
    found = {host: _fault(host, ended) for host in ended}
    return {host: why for host, why in found.items() if why}


def _fault(host: str, ended: Mapping[str, Sequence[Attempt]]) -> str:
    """Why this node is thought broken; empty where it is not."""
    since: list[Attempt] = []
    for attempt in reversed(ended[host]):
        if attempt.outcome == "finished":
            break
        since.insert(0, attempt)
    faults = [attempt for attempt in since if attempt.cause == "node"]
    if faults:
        return faults[-1].message
    elsewhere_too = (*_OF_THE_POINT, *_TAKEN, "store")  # a full disk is every node's
    told = [a for a in since if a.cause is not None and a.cause not in elsewhere_too][-ALIKE:]
    if len(told) < ALIKE or len({(a.cause, alike(a.message)) for a in told}) > 1:
        return ""
    elsewhere = any(
        a.outcome == "finished" and a.end > told[0].start
        for h, others in ended.items()
        if h != host
        for a in others
    )
    return f"{ALIKE} trials in a row failed there alike: {told[-1].message}" if elsewhere else ""
