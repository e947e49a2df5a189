"""Workers as they are started, by `hpotune worker`, on studies of small functions and commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest

from hpotune.objective.process import marked_processes
from hpotune.records.trial import Failure, TrialResult, Worker
from hpotune.storage import output_reader, stale_on_host
from hpotune.worker import this_worker, work

LOCAL = Worker(job="local", host="h", pid=os.getpid())
FAILED = Failure(cause="killed", message="its worker died")


def start(folder, *arguments: str, **env: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return subprocess.Popen(
        [sys.executable, "-m", "hpotune", "worker", str(folder.path), *arguments],
        env={**clean, **env}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def until(condition, seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(condition())


def test_a_worker_takes_trials_until_the_budget_is_out(place):
    folder, store = place(budget={"trials": 3})
    assert work(folder, me=LOCAL, trials=None, env=os.environ).taken == 3
    assert [row.state for row in store.rows()] == ["finished"] * 3
    assert all(row.values == ((row.params["params.x"] - 1) ** 2,) for row in store.rows())


def test_a_worker_takes_no_more_trials_than_it_is_told(place):
    folder, store = place()
    assert work(folder, me=LOCAL, trials=1, env=os.environ).taken == 1
    assert [row.state for row in store.rows()].count("finished") == 1


def test_a_worker_takes_nothing_after_the_studys_last_moment(place):
    folder, _ = place(budget={"trials": 3, "until": "2026-01-01"})
    assert work(folder, me=LOCAL, trials=None, env=os.environ, now=lambda: datetime(2026, 1, 2)).taken == 0


def test_a_worker_ends_when_too_many_trials_have_failed(place):
    folder, store = place(python=None, command="exit {x}3", budget={"trials": 5, "max_failed": 1})
    assert work(folder, me=LOCAL, trials=None, env=os.environ).taken == 2
    assert [row.failure.cause for row in store.rows() if row.failure] == ["user", "user"]


def test_a_point_that_breaks_a_rule_fails_its_trial_and_the_worker_lives(place):
    params = {"x": {"int": [0, 2], "prior": 1}, "root": {"expr": "1 / (params.x - 1)"}}
    folder, store = place(params=params, budget={"trials": 1, "max_failed": 0})
    assert work(folder, me=LOCAL, trials=None, env=os.environ).taken == 1
    assert store.rows()[0].failure.cause == "user"


def test_a_full_disk_fails_the_trial_and_not_the_worker(place):
    folder, store = place(budget={"trials": 2, "max_failed": 0})
    (folder.path / "trials").write_text("in the way")
    assert work(folder, me=LOCAL, trials=None, env=os.environ).taken == 3
    row = store.rows()[0]
    assert (row.failure.cause, len(row.attempts)) == ("store", 3)


def test_a_trial_tells_how_long_it_took(place):
    folder, store = place(budget={"trials": 1})
    work(folder, me=LOCAL, trials=None, env=os.environ)
    assert 0 < store.rows()[0].metrics["seconds"] < 60


def test_a_failed_trial_counts_the_gpus_it_held_and_keeps_no_large_files(place):
    resources = {"gpus": 2, "nodes": 3}
    command = "mkdir $HPOTUNE_TRIAL_DIR/checkpoint $HPOTUNE_TRIAL_DIR/adapter; exit {x}3"
    budget = {"trials": 1, "max_failed": 0}
    folder, store = place(python=None, command=command, budget=budget, resources=resources)
    work(folder, me=LOCAL, trials=None, env=os.environ)
    row = store.rows()[0]
    assert row.seconds >= row.metrics["seconds"] > 0
    assert row.gpu_hours == pytest.approx(6 * row.seconds / 3600)
    assert {path.name for path in folder.trial(0).iterdir()} == {"spec.json", "result.json", "log.txt"}


def test_a_worker_on_this_machine_tells_the_death_of_others_before_it_starts(place):
    folder, store = place(budget={"trials": 2})
    store.claim(Worker(job="local", host="h", pid=2**22 + 1))
    work(folder, me=LOCAL, trials=1, env=os.environ)
    row = store.rows()[0]
    assert row.state == "finished"
    assert [(attempt.cause, attempt.ended_by_other) for attempt in row.attempts] == [
        ("killed", True),
        (None, False),
    ]


SLOW = {"python": None, "command": "touch $HPOTUNE_TRIAL_DIR/ready; sleep 60; echo {x}"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_worker_that_is_asked_to_end_puts_its_trial_back_in_line(place, number):
    folder, store = place(**SLOW)
    worker = start(folder)
    assert until((folder.trial(0) / "ready").exists)
    before = store.rows()[0]
    worker.send_signal(number)
    assert worker.wait(30) == 0
    after = store.rows()[0]
    assert (after.state, after.params) == ("waiting", before.params)


def test_a_worker_killed_with_9_leaves_a_running_trial_and_no_process(place, tmp_path):
    folder, store = place(**SLOW)
    worker = start(folder, OF_THIS=str(tmp_path))
    assert until((folder.trial(0) / "ready").exists)
    worker.kill()
    worker.wait()
    assert until(lambda: not marked_processes(f"OF_THIS={tmp_path}"), 25)
    assert store.rows()[0].state == "running"


def test_a_value_that_its_worker_could_not_tell_is_told_by_the_sweep(place):
    folder, store = place()
    dead = Worker(job="local", host="h", pid=2**22 + 1)
    claim = store.claim(dead)
    folder.trial(0).mkdir(parents=True)
    left = TrialResult(number=0, state="finished", values=[0.125], metrics={"loss": 0.125})
    (folder.trial(0) / "result.json").write_text(left.model_dump_json())
    assert store.requeue_stale(
        lambda row: stale_on_host("h")(row.worker), read_output=output_reader(folder)
    ) == [claim.row.number]
    assert (store.rows()[0].state, store.rows()[0].values) == ("finished", (0.125,))


def test_half_a_result_is_no_result(place):
    folder, store = place()
    store.claim(Worker(job="local", host="h", pid=2**22 + 1))
    folder.trial(0).mkdir(parents=True)
    (folder.trial(0) / "result.json").write_text('{"number": 0, "sta')
    store.requeue_stale(lambda row: stale_on_host("h")(row.worker), read_output=output_reader(folder))
    row = store.rows()[0]
    assert (row.state, row.attempts[0].cause) == ("waiting", "killed")


def test_a_requeued_job_goes_on_with_the_trial_it_left(place):
    folder, store = place(budget={"trials": 2})
    earlier = Worker(job="7_1", host="elsewhere", pid=1, task="0.0")
    before = store.claim(earlier).row
    again = Worker(job="7_1", host="here", pid=os.getpid(), task="0.0")
    assert work(folder, me=again, trials=1, env=os.environ).taken == 1
    row = store.rows()[before.number]
    assert (row.state, row.params, row.worker) == ("finished", before.params, again)


def test_two_workers_started_by_hand_in_one_job_share_the_study(place):
    folder, store = place(python=None, command="sleep 1; echo {x}", budget={"trials": 4})
    workers = [start(folder, SLURM_JOB_ID="7") for _ in range(2)]
    assert [worker.wait(90) for worker in workers] == [0, 0]
    assert [row.state for row in store.rows()] == ["finished"] * 4


def test_a_worker_knows_its_array_element_and_its_task():
    env = {
        "SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_STEP_ID": "0", "SLURM_PROCID": "3",
    }  # fmt: skip
    me = this_worker(env, host="n1")
    assert (me.job, me.task, me.host, me.pid) == ("12_1", "0.3", "n1", os.getpid())


def test_outside_slurm_a_worker_is_local():
    assert this_worker({}, host="n1").job == "local"


def test_adapters_that_are_not_among_the_best_are_removed(place):
    folder, store = place(budget={"trials": 5})
    for number in range(5):
        (folder.trial(number) / "adapter").mkdir(parents=True)
    work(folder, me=LOCAL, trials=None, env=os.environ)
    kept = [n for n in range(5) if (folder.trial(n) / "adapter").exists()]
    best = sorted(store.rows(), key=lambda row: row.values)[:3]
    assert kept == sorted(row.number for row in best)


@pytest.mark.postgres
def test_a_worker_outlives_a_restart_of_its_server(place, postgres, server):
    folder, store = place(postgres, python=None, command="sleep 1; echo {x}", budget={"trials": 5})
    worker = start(folder)
    assert until(lambda: any(row.state == "finished" for row in store.rows()))
    server.stop()
    time.sleep(3)
    server.start()
    assert worker.wait(120) == 0
    assert [row.state for row in store.rows()] == ["finished"] * 5


@pytest.mark.postgres
def test_a_worker_whose_store_stays_away_ends_with_the_stores_exit_code(place, postgres, server, monkeypatch):
    folder, store = place(postgres, python=None, command="sleep 3; echo {x}", budget={"trials": 2})
    code = (
        "import sys, hpotune.storage.trials.queue as s; s.PATIENCE_S = 2; from hpotune.cli import main; "
        "sys.argv[1:] = ['worker', sys.argv[1]]; main()"
    )
    command = [sys.executable, "-c", code, str(folder.path)]
    worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert until((folder.trial(0) / "log.txt").exists)
    server.stop()
    try:
        complaint = worker.communicate(timeout=90)[1]
    finally:
        server.start()
    assert worker.returncode == 4, complaint
    assert store.requeue_stale(lambda _: FAILED, read_output=output_reader(folder)) == [0]
    assert store.rows()[0].values == (store.rows()[0].params["params.x"],)
