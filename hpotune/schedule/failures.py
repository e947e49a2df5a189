"""Nodes on which trials fail, and failures that all recent trials have in common. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from hpotune.config.schema.execution import Cause
from hpotune.records.trial import LOCAL, Attempt, Failure, TrialRow
from hpotune.records.trial_rows import matching

NODE_FAILURES = 3
"""Equal failures in a row on one node, while trials finish on other nodes, after which the node is excluded."""
UNCOUNTED: tuple[Cause, ...] = ("nan", "node", "preempted")
"""Causes that `budget.max_failed` does not count: the study file is not at fault."""
_OF_THE_POINT: tuple[Cause, ...] = ("nan", "oom")
"""Causes that depend on the trial's parameters: another point may succeed."""
_OF_THE_QUEUE: tuple[Cause, ...] = ("timeout", "preempted")
_NOT_OF_THE_NODE: tuple[Cause, ...] = (*_OF_THE_POINT, *_OF_THE_QUEUE, "store")


@dataclass(frozen=True, kw_only=True, slots=True)
class BadNode:
    """A node that new jobs exclude."""

    host: str
    kind: Literal["node_failure", "equal_failures"]
    """node_failure: an attempt there failed of cause `node`. equal_failures: NODE_FAILURES attempts failed alike."""
    text: str
    """One line for the user."""


def failure_pattern(message: str) -> str:
    """A message without its numbers and addresses, so that equal failures compare equal."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", message.lower())[:120]


def failure_causes(rows: Iterable[TrialRow]) -> list[Cause]:
    """The cause of every failed trial that was not retried by `hpotune retry`."""
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
    failed = sorted((row for row in rows if _counts_as_equal(row)), key=lambda row: row.end or 0.0)[-limit:]
    if len(failed) < limit or failed[0].failure is None:
        return None
    patterns = {(row.failure.cause, failure_pattern(row.failure.message)) for row in failed if row.failure}
    since = failed[0].end or 0.0
    succeeded = any(row.decided and (row.end or 0.0) > since for row in rows) or any(
        attempt.outcome == "rung" and attempt.end > since for row in rows for attempt in row.attempts
    )
    return None if len(patterns) > 1 or succeeded else failed[0].failure


def _counts_as_equal(row: TrialRow) -> bool:
    return (
        row.state == "failed"
        and row.failure is not None
        and not row.forgiven
        and row.failure.cause not in (*_OF_THE_POINT, "preempted")
    )


def bad_nodes(rows: Iterable[TrialRow], *, since: float = 0.0) -> dict[str, BadNode]:
    """Nodes that break the trials on them, by host; a trial that finishes there afterwards clears the node.

    `since`: attempts that ended before do not count, in Unix seconds.
    Attempts whose end another process recorded are left out: Slurm itself takes a node that is down out of service.
    """
    rows = rows if isinstance(rows, list) else list(rows)
    troubled = matching(rows, _is_troubled)
    if not any(_may_be_the_node(attempt) for row in troubled for attempt in row.attempts):
        return {}
    attempts = (attempt for row in rows for attempt in row.attempts if attempt.end > since)
    ended = [a for a in attempts if not a.ended_by_other and a.worker.job != LOCAL]
    on_host: dict[str, list[Attempt]] = {}
    for attempt in sorted(ended, key=attrgetter("end")):
        if attempt.succeeded:
            on_host.pop(attempt.worker.host, None)
        else:
            on_host.setdefault(attempt.worker.host, []).append(attempt)
    found = {host: _bad_node(host, attempts, ended) for host, attempts in on_host.items()}
    return {host: node for host, node in found.items() if node is not None}


def _is_troubled(row: TrialRow) -> bool:
    return row.state != "finished" or len(row.attempts) > 1


def _may_be_the_node(attempt: Attempt) -> bool:
    """Whether the attempt's cause can be its node's fault; a full disk affects every node."""
    return attempt.cause is not None and attempt.cause not in _NOT_OF_THE_NODE


def _bad_node(host: str, since: Sequence[Attempt], ended: Sequence[Attempt]) -> BadNode | None:
    """The finding on a node. `since`: attempts there after its last success; `ended`: all attempts on all nodes."""
    of_node = [attempt for attempt in since if attempt.cause == "node"]
    if of_node:
        return BadNode(host=host, kind="node_failure", text=of_node[-1].message)
    failed = [attempt for attempt in since if _may_be_the_node(attempt)][-NODE_FAILURES:]
    if len(failed) < NODE_FAILURES or len({(a.cause, failure_pattern(a.message)) for a in failed}) > 1:
        return None
    if not any(a.succeeded and a.end > failed[0].start and a.worker.host != host for a in ended):
        return None
    text = f"{NODE_FAILURES} trials in a row failed there alike: {failed[-1].message}"
    return BadNode(host=host, kind="equal_failures", text=text)
