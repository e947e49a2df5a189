"""Nodes that new jobs exclude, by what failed where."""

from __future__ import annotations

from hpotune.records.trial import Attempt, TrialRow, Worker
from hpotune.schedule.failures import BadNode, bad_nodes


def attempt(host: str, at: float, cause: str | None = None, message: str = "", **more) -> Attempt:
    worker = Worker(job=more.pop("job", "7_0"), host=host, pid=1)
    outcome = "finished" if cause is None else "failed"
    return Attempt(worker=worker, start=at - 1, end=at, outcome=outcome, cause=cause, message=message, **more)


def trials(*attempts: Attempt) -> list[TrialRow]:
    return [
        TrialRow(number=n, kind="trial", state="waiting", params={}, attempts=(one,))
        for n, one in enumerate(attempts)
    ]


def test_node_failure_excludes_node():
    found = bad_nodes(trials(attempt("n1", 1, "node", "ECC error")))
    assert found == {"n1": BadNode(host="n1", kind="node_failure", text="ECC error")}


def test_later_success_clears_node():
    assert bad_nodes(trials(attempt("n1", 1, "node", "ECC error"), attempt("n1", 2))) == {}


def test_lost_worker_does_not_exclude_node():
    assert bad_nodes(trials(attempt("n1", 1, "node", "NODE_FAIL", ended_by_other=True))) == {}


def test_equal_failures_exclude_a_node():
    failing = [attempt("n1", at, "user", f"no file /scratch/{at}") for at in (1, 3, 5)]
    found = bad_nodes(trials(*failing, attempt("n2", 4)))
    assert (found["n1"].host, found["n1"].kind) == ("n1", "equal_failures")
    assert found["n1"].text == "3 trials in a row failed there alike: no file /scratch/5"


def test_equal_failures_everywhere_exclude_none():
    failing = [attempt(f"n{at % 2}", at, "user", "no file") for at in range(1, 9)]
    assert bad_nodes(trials(*failing)) == {}


def test_causes_that_never_exclude_a_node():
    for cause in ("nan", "oom", "timeout", "preempted", "store"):
        failing = [attempt("n1", at, cause, "same") for at in (1, 3, 5)]
        assert bad_nodes(trials(*failing, attempt("n2", 4))) == {}


def test_local_machine_is_never_excluded():
    assert bad_nodes(trials(attempt("n1", 1, "node", "ECC error", job="local"))) == {}


def test_nodes_are_tried_again():
    rows = trials(attempt("n1", 1, "node", "ECC error"), attempt("n2", 4, "node", "ECC error"))
    since = max(a.end for row in rows for a in row.attempts if a.worker.host == "n1")
    assert set(bad_nodes(rows, since=since)) == {"n2"}
