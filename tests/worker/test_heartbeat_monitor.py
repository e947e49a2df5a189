"""A worker near the end of its job: which trials it claims, what it pauses, and what it records."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime

from hpotune.records.trial import Worker

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
