"""A worker and the end of its job: what it takes, what it leaves, and whom it tells."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import datetime

from hpotune.records.trial import Worker
from hpotune.worker import work

ME = Worker(job="7_0", host="n1", pid=os.getpid(), task="0.0")
SLOW = {"python": None, "command": "sleep 60; echo {x}"}
QUICK_LEASE = {"lease_s": 10}
ECC = "echo 'CUDA error: uncorrectable ECC error encountered'; exit 1; echo {x}"


def spans(folder):
    lines = (folder.jobs / "7" / "spans-7_0.jsonl").read_text().splitlines()
    return [(span["phase"], span["trial"]) for span in map(json.loads, lines)]


def test_a_trial_that_does_not_fit_into_the_rest_of_the_job_is_left(place):
    folder, store = place(plan={"trial_s": 600}, resources={"time": "60", "signal_delay_s": 0})
    assert work(folder, me=ME, trials=None, env=os.environ, deadline=time.time() + 300).taken == 0
    assert not any(row.attempts for row in store.rows())


def test_a_trial_that_no_job_could_hold_is_taken(place):
    folder, _ = place(
        plan={"trial_s": 6000}, resources={"time": "60", "signal_delay_s": 0}, budget={"trials": 1}
    )
    assert work(folder, me=ME, trials=None, env=os.environ, deadline=time.time() + 3600).taken == 1


def test_what_finished_trials_took_counts_more_than_the_plan(place):
    resources = {"time": "60", "signal_delay_s": 0}
    folder, store = place(plan={"trial_s": 6000}, resources=resources, budget={"trials": 2})
    work(folder, me=ME, trials=1, env=os.environ)
    assert work(folder, me=ME, trials=None, env=os.environ, deadline=time.time() + 300).taken == 1
    assert [row.state for row in store.rows()] == ["finished", "finished"]


def test_a_worker_whose_time_is_out_stops_its_trial_by_itself(place, monkeypatch):
    monkeypatch.setattr("hpotune.schedule.job_fit.MARGIN_S", 0)
    folder, store = place(**SLOW, budget={"trials": 1}, resources={"signal_delay_s": 0})
    work(folder, me=ME, trials=None, env=os.environ, deadline=time.time() + 3)
    row = store.rows()[0]
    assert row.state == "waiting"
    assert [(attempt.outcome, attempt.cause) for attempt in row.attempts] == [("paused", "timeout")]


def test_running_trials_stop_with_the_study_where_its_budget_says_so(place):
    budget = {"trials": 1, "until": "2026-01-01", "on_end": "cancel"}
    folder, store = place(**SLOW, budget=budget, execution=QUICK_LEASE)
    looks = []

    def now():
        looks.append(time.time())
        return datetime(2025, 12, 31) if len(looks) == 1 else datetime(2026, 1, 2)

    work(folder, me=ME, trials=None, env=os.environ, now=now)
    row = store.rows()[0]
    assert (row.state, row.attempts[0].outcome, row.attempts[0].cause) == ("waiting", "paused", None)


def test_a_worker_ends_the_trial_that_somebody_else_runs_by_now(place):
    folder, store = place(**SLOW, budget={"trials": 1}, execution=QUICK_LEASE)
    other = Worker(job="8_0", host="n2", pid=1, task="0.0")

    def take_over():
        while not (folder.trial(0) / "log.txt").exists():
            time.sleep(0.1)
        [trial] = store._storage.get_all_trials(store._id)[:1]
        store.pause(trial._trial_id)
        assert store.claim(other).row.number == 0

    thread = threading.Thread(target=take_over)
    thread.start()
    work(folder, me=ME, trials=1, env=os.environ)
    thread.join()
    row = store.rows()[0]
    assert (row.state, row.worker) == ("running", other)
    assert [attempt.outcome for attempt in row.attempts] == ["paused"]


def test_a_worker_says_that_it_lives_while_a_trial_runs(place):
    command = "sleep 5; echo {x}"
    folder, store = place(python=None, command=command, budget={"trials": 1}, execution=QUICK_LEASE)
    work(folder, me=ME, trials=None, env=os.environ)
    row = store.rows()[0]
    assert row.attempts[0].start < row.last_heartbeat <= row.attempts[0].end


def test_a_worker_on_a_broken_node_leaves_its_trial_to_others_and_ends(place):
    folder, store = place(python=None, command=ECC)
    done = work(folder, me=ME, trials=None, env=os.environ)
    assert (done.taken, done.broken_node) == (1, True)
    row = store.rows()[0]
    assert (row.state, row.attempts[0].cause) == ("waiting", "node")
    assert "uncorrectable ECC error" in row.attempts[0].message


def test_a_worker_that_starts_on_a_broken_node_takes_nothing(place):
    folder, _ = place(python=None, command=ECC)
    work(folder, me=ME, trials=None, env=os.environ)
    assert work(folder, me=ME, trials=None, env=os.environ).taken == 0


def test_this_machine_is_never_left_out(place):
    folder, store = place(python=None, command=ECC, budget={"trials": 1, "max_failed": 0})
    local = Worker(job="local", host="n1", pid=os.getpid())
    assert not work(folder, me=local, trials=3, env=os.environ).broken_node
    assert [attempt.cause for attempt in store.rows()[0].attempts] == ["node"] * 3


def test_a_job_tells_what_its_time_went_into(place):
    folder, _ = place(budget={"trials": 2})
    work(folder, me=ME, trials=None, env=os.environ)
    assert spans(folder) == [("start", None), ("trial", 0), ("idle", None), ("trial", 1)]


def test_one_worker_draws_the_same_trials_in_every_mode(place):
    search = {"algorithm": "tpe", "seed": 3, "options": {"n_startup_trials": 2}}
    found = []
    for mode in ("sequential", "batch", "async"):
        sections = {"search": search, "budget": {"trials": 6}, "execution": {"mode": mode}}
        folder, store = place(folder_name=mode, **sections)
        work(folder, me=ME, trials=None, env=os.environ)
        found.append([(row.params, row.values) for row in store.rows()])
    assert len(found[0]) == 6
    assert found[0] == found[1] == found[2]


def test_of_two_trials_taken_at_once_the_first_gets_the_rest_of_the_budget(place, monkeypatch):
    """Both workers looked while there was room for one; the other had taken its trial a moment before."""
    folder, store = place(
        budget={"trials": 9, "gpu_hours": 2.5}, resources={"gpus": 1}, plan={"trial_s": 3600}
    )
    assert store.claim(Worker(job="8_0", host="n2", pid=1)).row.number == 0
    assert store.claim(Worker(job="8_1", host="n2", pid=1)).row.number == 1
    monkeypatch.setattr("hpotune.worker.loop._over", lambda shift, rows: False)
    assert work(folder, me=ME, trials=None, env=os.environ).taken == 0
    row = store.rows()[2]
    assert (row.state, row.attempts[0].outcome) == ("waiting", "paused")
