"""A worker near the end of its job: which trials it claims, what it pauses, and what it records."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import datetime

import pytest

from hpotune.records.jobs import JobTimes
from hpotune.records.trial import Failure, TrialResult, Worker
from hpotune.schedule.failures import bad_nodes
from hpotune.worker.job_end import JobEnd
from hpotune.worker.loop import WorkerLoop

IN_JOB = Worker(job="7_0", host="n1", pid=os.getpid(), task="0.0")
SLOW = {"python": None, "command": "sleep 60; echo {x}"}
QUICK_LEASE = {"lease_s": 10}


def test_end_of_job_stops_trial(new_study, monkeypatch, work):
    monkeypatch.setattr("hpotune.schedule.job_fit.MARGIN_S", 0)
    folder, store = new_study(**SLOW, budget={"trials": 1}, resources={"signal_delay_s": 0})
    work(folder, worker=IN_JOB, deadline=time.time() + 3)
    row = store.rows()[0]
    assert row.state == "waiting"
    assert [(attempt.outcome, attempt.cause) for attempt in row.attempts] == [("paused", "timeout")]


def test_raised_limit_lets_trial_finish(new_study, work):
    folder, store = new_study(
        python=None,
        command="sleep 4; echo '{{\"value\": {x}}}'",
        budget={"trials": 1},
        resources={"signal_delay_s": 0},
    )
    later = JobTimes(end=time.time() + 600, limit_s=660)
    done = work(folder, worker=IN_JOB, deadline=time.time() + 2, limit_s=60, ask_times=lambda _: later)
    assert (done.trials, done.ended_by) == (1, "nothing left")
    assert [attempt.cause for attempt in store.rows()[0].attempts] == [None]


@pytest.mark.parametrize(
    ("answer", "cause", "message"),
    [
        ({"limit_s": 60.0}, "timeout", "the time limit of its job 7_0 was cut from 60 to 1 minutes"),
        ({"limit_s": 3600.0}, "timeout", "the time of its job 7_0 was out"),
        ({"limit_s": 3600.0, "preempted": True}, "preempted", "its job 7_0 was preempted"),
        (None, "preempted", "its job 7_0 was preempted"),
    ],
    ids=["cut", "out", "preempted", "no answer"],
)
def test_early_warning_has_its_cause(new_study, work, answer, cause, message):
    folder, store = new_study(**SLOW, budget={"trials": 1}, resources={"signal_delay_s": 0})

    def warn():
        while not (folder.trial(0) / "log.txt").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR2)

    thread = threading.Thread(target=warn)
    thread.start()
    known = JobTimes(end=time.time() + 20, **answer) if answer else None
    work(folder, worker=IN_JOB, deadline=time.time() + 3600, limit_s=3600, ask_times=lambda _: known)
    thread.join()
    attempt = store.rows()[0].attempts[0]
    assert (attempt.cause, attempt.message.startswith(message)) == (cause, True), attempt


def test_failing_question_stops_trial_in_time(new_study, monkeypatch, work):
    """The trial is asked to write its checkpoint, though nothing tells when the job ends."""
    monkeypatch.setattr("hpotune.schedule.job_fit.MARGIN_S", 0)
    folder, store = new_study(**SLOW, budget={"trials": 1}, resources={"signal_delay_s": 0})

    def ask(_):
        if threading.current_thread() is not threading.main_thread():
            raise OSError(28, "No space left on device")
        return None

    work(folder, worker=IN_JOB, deadline=time.time() + 3, ask_times=ask)
    row = store.rows()[0]
    assert (row.state, row.attempts[0].outcome) == ("waiting", "paused")


def test_workers_that_end_share_an_answer():
    """Those of an array queue behind one lock: an answer that is younger than the signal counts for all."""
    ages = []
    end = JobEnd(time.time() + 3600, limit_s=3600, ask=ages.append)
    end.loss(IN_JOB, warned=True, left_s=lambda: 1800.0, asked_s=12.0)
    assert ages == [12.0]


def test_lost_node_is_the_cause(new_study):
    """SIGTERM without a warning: a user's, unless Slurm says why it took the job. The node is not excluded for it."""
    folder, store = new_study(budget={"trials": 2})
    losses = iter([Failure(cause="node", message="node n1 failed"), None])
    loop = WorkerLoop.open(
        folder, worker=IN_JOB, env={}, deadline=time.time() + 3600, ask_loss=lambda: next(losses)
    )
    for _ in range(2):
        claim = store.claim(IN_JOB)
        loop._stop.request(signal.SIGTERM)
        loop._record(claim, TrialResult(number=claim.row.number, state="paused"))
    first, second = store.rows()[0].attempts
    assert (first.outcome, first.cause, first.message) == ("paused", "node", "node n1 failed")
    assert (second.outcome, second.cause) == ("paused", None)
    assert bad_nodes(store.rows()) == {}


def test_finished_trial_asks_nothing(new_study):
    """A worker that is asked to end as its trial finishes need not know why."""
    folder, store = new_study(budget={"trials": 1})
    asked = []
    loop = WorkerLoop.open(folder, worker=IN_JOB, env={}, deadline=time.time() + 3600, ask_times=asked.append)
    claim = store.claim(IN_JOB)
    loop._stop.request(signal.SIGUSR2)
    loop._record(claim, TrialResult(number=0, state="finished", values=[1.0]))
    assert (store.rows()[0].state, asked) == ("finished", [])


def test_raised_limit_has_room_for_trial(new_study, work):
    folder, store = new_study(
        plan={"trial_s": 600}, resources={"time": "60", "signal_delay_s": 0}, budget={"trials": 1}
    )
    later = JobTimes(end=time.time() + 3000, limit_s=3600)
    assert work(folder, worker=IN_JOB, deadline=time.time() + 300, ask_times=lambda _: later).trials == 1
    assert store.rows()[0].state == "finished"


def test_end_of_study_cancels_trial(new_study, work):
    budget = {"trials": 1, "until": "2026-01-01", "on_end": "cancel"}
    folder, store = new_study(**SLOW, budget=budget, execution=QUICK_LEASE)
    looks = []

    def now():
        looks.append(time.time())
        return datetime(2025, 12, 31) if len(looks) == 1 else datetime(2026, 1, 2)

    work(folder, worker=IN_JOB, now=now)
    row = store.rows()[0]
    assert (row.state, row.attempts[0].outcome, row.attempts[0].cause) == ("waiting", "paused", None)


def test_trial_of_other_worker_is_ended(new_study, work):
    folder, store = new_study(**SLOW, budget={"trials": 1}, execution=QUICK_LEASE)
    other = Worker(job="8_0", host="n2", pid=1, task="0.0")

    def take_over():
        while not (folder.trial(0) / "log.txt").exists():
            time.sleep(0.1)
        [trial] = store._storage.get_all_trials(store._id)[:1]
        store.pause(trial._trial_id)
        assert store.claim(other).row.number == 0

    thread = threading.Thread(target=take_over)
    thread.start()
    work(folder, worker=IN_JOB, trials=1)
    thread.join()
    row = store.rows()[0]
    assert (row.state, row.worker) == ("running", other)
    assert [attempt.outcome for attempt in row.attempts] == ["paused"]


def test_heartbeat_is_renewed(new_study, work):
    command = "sleep 5; echo {x}"
    folder, store = new_study(python=None, command=command, budget={"trials": 1}, execution=QUICK_LEASE)
    work(folder, worker=IN_JOB)
    row = store.rows()[0]
    assert row.attempts[0].start < row.last_heartbeat <= row.attempts[0].end
