"""Broken nodes, told from what failed where."""

from __future__ import annotations

from hpotune.records.trial import Attempt, TrialRow, Worker
from hpotune.schedule.failures import bad_nodes


def attempt(host: str, at: float, cause: str | None = None, message: str = "", **more) -> Attempt:
    worker = Worker(job=more.pop("job", "7_0"), host=host, pid=1)
    outcome = "finished" if cause is None else "failed"
    return Attempt(worker=worker, start=at - 1, end=at, outcome=outcome, cause=cause, message=message, **more)


def trials(*attempts: Attempt) -> list[TrialRow]:
    return [
        TrialRow(number=n, kind="trial", state="waiting", params={}, attempts=(one,))
        for n, one in enumerate(attempts)
    ]


def test_a_node_with_a_fault_of_its_own_is_broken():
    assert bad_nodes(trials(attempt("n1", 1, "node", "ECC error"))) == {"n1": "ECC error"}


def test_a_node_that_has_finished_a_trial_since_is_not():
    assert bad_nodes(trials(attempt("n1", 1, "node", "ECC error"), attempt("n1", 2))) == {}


def test_a_node_that_died_is_slurms_to_see():
    assert bad_nodes(trials(attempt("n1", 1, "node", "NODE_FAIL", ended_by_other=True))) == {}


def test_a_node_where_all_fails_alike_while_others_do_well_is_broken():
    failing = [attempt("n1", at, "user", f"no file /scratch/{at}") for at in (1, 3, 5)]
    found = bad_nodes(trials(*failing, attempt("n2", 4)))
    assert found == {"n1": "3 trials in a row failed there alike: no file /scratch/5"}


def test_where_all_nodes_fail_alike_none_is_to_blame():
    failing = [attempt(f"n{at % 2}", at, "user", "no file") for at in range(1, 9)]
    assert bad_nodes(trials(*failing)) == {}


def test_what_diverges_lacks_memory_or_meets_a_full_disk_says_nothing_of_a_node():
    for cause in ("nan", "oom", "timeout", "preempted", "store"):
        failing = [attempt("n1", at, cause, "same") for at in (1, 3, 5)]
        assert bad_nodes(trials(*failing, attempt("n2", 4))) == {}


def test_this_machine_outside_slurm_is_never_left_out():
    assert bad_nodes(trials(attempt("n1", 1, "node", "ECC error", job="local"))) == {}
