"""Why Slurm took a job, by its commands' answers. Fake commands."""

from __future__ import annotations

import pytest

from hpotune.records.trial import Worker
from hpotune.slurm.job_loss import job_loss, requeue_cause

ENV = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_RESTART_COUNT": "1"}
WORKER = Worker(job="7_1", host="n1", pid=1)


@pytest.mark.parametrize(
    ("node", "restarts", "states", "cause", "said"),
    [
        ("down*", 1, "", "node", "Slurm took node n1 out of service (down*) and ended its job 7_1"),
        ("idle", 2, "PREEMPTED\nNODE_FAIL\nREQUEUED\nPENDING", "node", "node n1 failed"),
        ("idle", 2, "NODE_FAIL\nPREEMPTED\nPENDING", "preempted", "its job 7_1 was preempted on n1"),
        ("idle", 2, "PREEMPTED\nCANCELLED by 0\nPENDING", None, ""),
        ("idle", 1, "NODE_FAIL\nRUNNING", None, ""),
    ],
    ids=["node down", "node failed", "preempted", "requeued by hand", "not requeued"],
)
def test_slurms_reason_for_the_end(fake, node, restarts, states, cause, said):
    fake("sinfo", f"NODELIST|STATE\nn1|{node}\n")
    fake(
        "scontrol", f"JobId=7 ArrayJobId=7 ArrayTaskId=1 JobState=COMPLETING Requeue=1 Restarts={restarts}\n"
    )
    fake("sacct", states)
    loss = job_loss(ENV, WORKER)
    assert (loss.cause if loss else None) == cause
    assert said in (loss.message if loss else "")


def test_users_cancel_asks_no_accounting(fake):
    """Many workers that are cancelled together would ask the database at one instant."""
    fake("sinfo", "NODELIST|STATE\nn1|mixed\n")
    fake("scontrol", "JobId=7 Restarts=1\n")
    fake("sacct", "NODE_FAIL")
    assert job_loss(ENV, WORKER) is None
    assert fake.calls("sacct") == 0


def test_silent_commands_give_no_reason(fake):
    fake("sinfo", "error", code=1)
    assert job_loss(ENV, WORKER) is None
    assert requeue_cause(ENV) == "preempted"


def test_restarted_job_after_node_failure(fake):
    fake("sacct", "PREEMPTED\nNODE_FAIL\nRUNNING")
    assert requeue_cause(ENV) == "node"
    assert requeue_cause({"SLURM_JOB_ID": "7"}) == "preempted"
