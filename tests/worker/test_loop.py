"""Workers as they are started, by `hpotune worker`, on studies of small functions and commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest

from hpotune.records.trial import Failure, TrialResult, Worker
from hpotune.storage import output_reader, requeue_lock, stale_on_host
from hpotune.storage.trials import stale
from hpotune.worker.loop import WorkerLoop, this_worker
from hpotune.worker.objective.process import marked_processes

LOCAL = Worker(job="local", host="h", pid=os.getpid())
IN_JOB = Worker(job="7_0", host="n1", pid=os.getpid(), task="0.0")
FAILED = Failure(cause="killed", message="its worker died")


def start(folder, *arguments: str, **env: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return subprocess.Popen(
        [sys.executable, "-m", "hpotune", "worker", str(folder.path), *arguments],
        env={**clean, **env}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_worker_runs_whole_budget(new_study, work):
    folder, store = new_study(budget={"trials": 3})
    assert work(folder, worker=LOCAL).trials == 3
    assert [row.state for row in store.rows()] == ["finished"] * 3
    assert all(row.values == ((row.params["params.x"] - 1) ** 2,) for row in store.rows())


def test_worker_runs_given_trials(new_study, work):
    folder, store = new_study()
    assert work(folder, worker=LOCAL, trials=1).trials == 1
    assert [row.state for row in store.rows()].count("finished") == 1


def test_no_trial_starts_after_until(new_study, work):
    folder, _ = new_study(budget={"trials": 3, "until": "2026-01-01"})
    assert work(folder, worker=LOCAL, now=lambda: datetime(2026, 1, 2)).trials == 0


def test_too_many_failures_end_worker(new_study, work):
    folder, store = new_study(python=None, command="exit {x}3", budget={"trials": 5, "max_failed": 1})
    assert work(folder, worker=LOCAL).trials == 2
    assert [row.failure.cause for row in store.rows() if row.failure] == ["user", "user"]


def test_invalid_point_fails_its_trial(new_study, work):
    params = {"x": {"int": [0, 2], "prior": 1}, "root": {"expr": "1 / (params.x - 1)"}}
    folder, store = new_study(params=params, budget={"trials": 1, "max_failed": 0})
    assert work(folder, worker=LOCAL).trials == 1
    assert store.rows()[0].failure.cause == "user"


def test_full_disk_fails_the_trial(new_study, work):
    folder, store = new_study(budget={"trials": 2, "max_failed": 0})
    (folder.path / "trials").write_text("in the way")
    assert work(folder, worker=LOCAL).trials == 3
    row = store.rows()[0]
    assert (row.failure.cause, len(row.attempts)) == ("store", 3)


def test_seconds_are_recorded(new_study, work):
    folder, store = new_study(budget={"trials": 1})
    work(folder, worker=LOCAL)
    assert 0 < store.rows()[0].metrics["seconds"] < 60


def test_failed_trial_keeps_no_large_files(new_study, work):
    resources = {"gpus": 2, "nodes": 3}
    command = "mkdir $HPOTUNE_TRIAL_DIR/checkpoint $HPOTUNE_TRIAL_DIR/adapter; exit {x}3"
    budget = {"trials": 1, "max_failed": 0}
    folder, store = new_study(python=None, command=command, budget=budget, resources=resources)
    work(folder, worker=LOCAL)
    row = store.rows()[0]
    assert row.seconds >= row.metrics["seconds"] > 0
    assert row.gpu_hours == pytest.approx(6 * row.seconds / 3600)
    assert {path.name for path in folder.trial(0).iterdir()} == {
        "provenance.json",
        "spec.json",
        "result.json",
        "log.txt",
    }


def test_requeuing_is_left_to_its_holder(new_study, work, monkeypatch):
    folder, store = new_study(budget={"trials": 2})
    store.claim(Worker(job="local", host="h", pid=2**22 + 1))
    monkeypatch.setattr(stale, "REQUEUE_PATIENCE_S", 0.1)
    with requeue_lock(folder) as held:
        assert held
        work(folder, worker=LOCAL, trials=1)
    assert [row.state for row in store.rows()] == ["running", "finished"]


def test_stale_local_worker_is_requeued(new_study, work):
    folder, store = new_study(budget={"trials": 2})
    store.claim(Worker(job="local", host="h", pid=2**22 + 1))
    work(folder, worker=LOCAL, trials=1)
    row = store.rows()[0]
    assert row.state == "finished"
    assert [(attempt.cause, attempt.ended_by_other) for attempt in row.attempts] == [
        ("killed", True),
        (None, False),
    ]


SLOW = {"python": None, "command": "touch $HPOTUNE_TRIAL_DIR/ready; sleep 60; echo {x}"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_stopped_worker_releases_its_trial(new_study, number, until):
    folder, store = new_study(**SLOW)
    worker = start(folder)
    assert until((folder.trial(0) / "ready").exists)
    before = store.rows()[0]
    worker.send_signal(number)
    assert worker.wait(30) == 0
    after = store.rows()[0]
    assert (after.state, after.params) == ("waiting", before.params)


def test_killed_worker_leaves_running_trial(new_study, tmp_path, until):
    folder, store = new_study(**SLOW)
    worker = start(folder, OF_THIS=str(tmp_path))
    assert until((folder.trial(0) / "ready").exists)
    worker.kill()
    worker.wait()
    assert until(lambda: not marked_processes(f"OF_THIS={tmp_path}"), 25)
    assert store.rows()[0].state == "running"


def test_unrecorded_value_is_recorded_later(new_study):
    folder, store = new_study()
    stale = Worker(job="local", host="h", pid=2**22 + 1)
    claim = store.claim(stale)
    folder.trial(0).mkdir(parents=True)
    left = TrialResult(number=0, state="finished", values=[0.125], metrics={"loss": 0.125})
    (folder.trial(0) / "result.json").write_text(left.model_dump_json())
    assert store.requeue_stale(
        lambda row: stale_on_host("h")(row.worker), read_output=output_reader(folder)
    ) == [claim.row.number]
    assert (store.rows()[0].state, store.rows()[0].values) == ("finished", (0.125,))


def test_half_result_is_no_result(new_study):
    folder, store = new_study()
    store.claim(Worker(job="local", host="h", pid=2**22 + 1))
    folder.trial(0).mkdir(parents=True)
    (folder.trial(0) / "result.json").write_text('{"number": 0, "sta')
    store.requeue_stale(lambda row: stale_on_host("h")(row.worker), read_output=output_reader(folder))
    row = store.rows()[0]
    assert (row.state, row.attempts[0].cause) == ("waiting", "killed")


def test_requeued_job_continues_its_trial(new_study, work):
    folder, store = new_study(budget={"trials": 2})
    earlier = Worker(job="7_1", host="elsewhere", pid=1, task="0.0")
    before = store.claim(earlier).row
    again = Worker(job="7_1", host="here", pid=os.getpid(), task="0.0")
    assert work(folder, worker=again, trials=1).trials == 1
    row = store.rows()[before.number]
    assert (row.state, row.params, row.worker) == ("finished", before.params, again)


def test_two_workers_share_one_job(new_study):
    folder, store = new_study(python=None, command="sleep 1; echo {x}", budget={"trials": 4})
    workers = [start(folder, SLURM_JOB_ID="7") for _ in range(2)]
    assert [worker.wait(90) for worker in workers] == [0, 0]
    assert [row.state for row in store.rows()] == ["finished"] * 4


def test_worker_has_element_and_task():
    env = {
        "SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_STEP_ID": "0", "SLURM_PROCID": "3",
    }  # fmt: skip
    me = this_worker(env, host="n1")
    assert (me.job, me.task, me.host, me.pid) == ("12_1", "0.3", "n1", os.getpid())


def test_worker_outside_slurm_is_local():
    assert this_worker({}, host="n1").job == "local"


def test_other_adapters_are_deleted(new_study, work):
    folder, store = new_study(budget={"trials": 5})
    for number in range(5):
        (folder.trial(number) / "adapter").mkdir(parents=True)
    work(folder, worker=LOCAL)
    kept = [n for n in range(5) if (folder.trial(n) / "adapter").exists()]
    best = sorted(store.rows(), key=lambda row: row.values)[:3]
    assert kept == sorted(row.number for row in best)


@pytest.mark.postgres
def test_worker_survives_server_restart(new_study, postgres, server, until):
    folder, store = new_study(postgres, python=None, command="sleep 1; echo {x}", budget={"trials": 5})
    worker = start(folder)
    assert until(lambda: any(row.state == "finished" for row in store.rows()))
    server.stop()
    time.sleep(3)
    server.start()
    assert worker.wait(120) == 0
    assert [row.state for row in store.rows()] == ["finished"] * 5


@pytest.mark.postgres
def test_missing_store_has_exit_code(new_study, postgres, server, monkeypatch, until):
    folder, store = new_study(postgres, python=None, command="sleep 3; echo {x}", budget={"trials": 2})
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


ECC = "echo 'CUDA error: uncorrectable ECC error encountered'; exit 1; echo {x}"


def spans(folder):
    lines = (folder.jobs / "7" / "spans-7_0.jsonl").read_text().splitlines()
    return [(span["phase"], span["trial"]) for span in map(json.loads, lines)]


def test_too_long_trial_is_not_started(new_study, work):
    folder, store = new_study(plan={"trial_s": 600}, resources={"time": "60", "signal_delay_s": 0})
    assert work(folder, worker=IN_JOB, deadline=time.time() + 300).trials == 0
    assert not any(row.attempts for row in store.rows())


def test_trial_longer_than_any_job_starts(new_study, work):
    folder, _ = new_study(
        plan={"trial_s": 6000}, resources={"time": "60", "signal_delay_s": 0}, budget={"trials": 1}
    )
    assert work(folder, worker=IN_JOB, deadline=time.time() + 3600).trials == 1


def test_measured_time_replaces_plan(new_study, work):
    resources = {"time": "60", "signal_delay_s": 0}
    folder, store = new_study(plan={"trial_s": 6000}, resources=resources, budget={"trials": 2})
    work(folder, worker=IN_JOB, trials=1)
    assert work(folder, worker=IN_JOB, deadline=time.time() + 300).trials == 1
    assert [row.state for row in store.rows()] == ["finished", "finished"]


def test_broken_node_ends_worker(new_study, work):
    folder, store = new_study(python=None, command=ECC)
    done = work(folder, worker=IN_JOB)
    assert (done.trials, done.broken_node) == (1, True)
    row = store.rows()[0]
    assert (row.state, row.attempts[0].cause) == ("waiting", "node")
    assert "uncorrectable ECC error" in row.attempts[0].message


def test_broken_node_starts_no_trial(new_study, work):
    folder, _ = new_study(python=None, command=ECC)
    work(folder, worker=IN_JOB)
    assert work(folder, worker=IN_JOB).trials == 0


def test_local_host_is_never_broken(new_study, work):
    folder, store = new_study(python=None, command=ECC, budget={"trials": 1, "max_failed": 0})
    local = Worker(job="local", host="n1", pid=os.getpid())
    assert not work(folder, worker=local, trials=3).broken_node
    assert [attempt.cause for attempt in store.rows()[0].attempts] == ["node"] * 3


def test_timeline_has_spans(new_study, work):
    folder, _ = new_study(budget={"trials": 2})
    work(folder, worker=IN_JOB)
    assert spans(folder) == [("start", None), ("trial", 0), ("idle", None), ("trial", 1)]


def test_modes_agree_for_one_worker(new_study, work):
    search = {"algorithm": "tpe", "seed": 3, "options": {"n_startup_trials": 2}}
    found = []
    for mode in ("sequential", "batch", "async"):
        sections = {"search": search, "budget": {"trials": 6}, "execution": {"mode": mode}}
        folder, store = new_study(folder_name=mode, **sections)
        work(folder, worker=IN_JOB)
        found.append([(row.params, row.values) for row in store.rows()])
    assert len(found[0]) == 6
    assert found[0] == found[1] == found[2]


def test_first_claim_gets_rest_of_budget(new_study, monkeypatch, work):
    """Both workers looked while there was room for one; the other had taken its trial a moment before."""
    folder, store = new_study(
        budget={"trials": 9, "gpu_hours": 2.5}, resources={"gpus": 1}, plan={"trial_s": 3600}
    )
    assert store.claim(Worker(job="8_0", host="n2", pid=1)).row.number == 0
    assert store.claim(Worker(job="8_1", host="n2", pid=1)).row.number == 1
    monkeypatch.setattr(WorkerLoop, "_is_over", lambda loop, rows: False)
    assert work(folder, worker=IN_JOB).trials == 0
    row = store.rows()[2]
    assert (row.state, row.attempts[0].outcome) == ("waiting", "paused")
