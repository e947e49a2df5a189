"""`run` on this machine: workers started, watched, replaced, stopped; and what Slurm's words mean without a Slurm."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from hpotune.checks.doctor import findings
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.launch.cancel import cancel_study
from hpotune.launch.run_local import check_local, run_study, run_workers, shortfall
from hpotune.records.jobs import JobRow
from hpotune.records.trial import Worker
from hpotune.slurm.commands import error_line
from hpotune.slurm.study_jobs import failure_by_job_state
from hpotune.storage import TrialQueue, stale_on_host
from hpotune.worker.objective.process import marked_processes
from hpotune.workspace.lock import try_exclusive_lock

GONE = 2**22 + 1
"""No process has so large a number."""


@pytest.fixture
def study_folder(make_study, make_study_folder, tmp_path):
    """A study's folder and its store."""

    def made(**sections):
        study, url = make_study(**sections), f"sqlite:///{tmp_path}/store.db"
        folder = make_study_folder(study, url)
        return folder, TrialQueue.create(url, study, folder=str(folder.path))

    return made


def until(condition, seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(condition())


def states(store: TrialQueue) -> list[str]:
    return [row.state for row in store.rows()]


def test_two_workers_finish_a_study(study_folder):
    folder, store = study_folder()
    shown = []
    assert run_workers(folder, store, count=2, show=lambda: shown.append(1))
    assert states(store) == ["finished"] * 6
    assert shown
    assert len({row.worker.pid for row in store.rows()}) == 2


def test_finished_study_runs_nothing(study_folder):
    folder, store = study_folder(budget={"trials": 2})
    run_workers(folder, store, count=1, show=lambda: None)
    before = store.rows()
    assert run_workers(folder, store, count=1, show=lambda: None)
    assert store.rows() == before


def test_trials_of_killed_run_are_requeued(study_folder):
    folder, store = study_folder(budget={"trials": 2})
    store.claim(Worker(job="local", host=platform.node(), pid=GONE))
    assert run_workers(folder, store, count=1, show=lambda: None)
    assert states(store) == ["finished", "finished"]
    assert [attempt.cause for attempt in store.rows()[0].attempts] == ["killed", None]
    assert "ended without a result" in store.rows()[0].attempts[0].message


def test_killed_worker_is_replaced(study_folder):
    folder, store = study_folder(python=None, command="sleep 0.3; echo {x}", budget={"trials": 4})
    killed = []

    def show() -> None:
        running = [row for row in store.rows() if row.state == "running" and row.worker]
        if running and not killed:
            killed.append(running[0].number)
            os.kill(running[0].worker.pid, signal.SIGKILL)

    assert run_workers(folder, store, count=1, show=show)
    assert states(store) == ["finished"] * 4
    assert [attempt.cause for attempt in store.rows()[killed[0]].attempts] == ["killed", None]


def test_killed_run_ends_its_workers(study_folder):
    folder, store = study_folder(
        python=None, command="touch $HPOTUNE_TRIAL_DIR/ready; [ -e go ] || sleep 600; echo {x}",
        budget={"trials": 2, "parallel": 2},
    )  # fmt: skip
    command = [sys.executable, "-m", "hpotune", "run", str(folder.path)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert until(lambda: len(list(folder.path.glob("trials/*/ready"))) == 2)
    workers = [row.worker.pid for row in store.rows()]
    run.kill()
    run.wait()
    assert until(lambda: not any(Path("/proc", str(pid)).exists() for pid in workers))
    assert until(lambda: not marked_processes(f"HPOTUNE_TRIAL_DIR={folder.path}"))
    (Path(folder.provenance().home) / "go").touch()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert states(store) == ["finished"] * 2


def test_workers_without_trials_are_an_error(study_folder):
    folder, store = study_folder()
    folder.provenance_file.write_text('{"store": "sqlite:////nowhere/s.db", "home": "/"}')
    with pytest.raises(
        HpotuneError, match=r"every worker ended without claiming a trial.*nowhere.*worker-0.log"
    ):
        run_workers(folder, store, count=1, show=lambda: None)


@pytest.mark.parametrize("ask", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda ask: ask.name)
def test_signal_releases_running_trials(study_folder, ask):
    folder, store = study_folder(
        python=None, command="touch $HPOTUNE_TRIAL_DIR/ready; [ -e go ] || sleep 60; echo {x}"
    )
    command = [sys.executable, "-m", "hpotune", "run", str(folder.path)]
    # Signals as in a terminal: a test run in the background hands on that SIGINT is ignored, and run respects that.
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(ask, signal.SIG_DFL),
    )
    assert until(lambda: len(list(folder.path.glob("trials/*/ready"))) == 2)
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f"process {run.pid} on" in second.stderr
    run.send_signal(ask)
    said = run.communicate(timeout=60)[0]
    assert run.returncode == 130, said
    assert states(store) == ["waiting"] * 6
    (folder.path.parent / "home" / "go").touch()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert states(store) == ["finished"] * 6


def test_cancel_ends_local_workers(study_folder):
    folder, store = study_folder(python=None, command="touch $HPOTUNE_TRIAL_DIR/ready; sleep 60; echo {x}")
    worker = subprocess.Popen([sys.executable, "-m", "hpotune", "worker", str(folder.path)])
    assert until((folder.trial(0) / "ready").exists)
    assert cancel_study(folder, store) == [f"local worker {worker.pid} (trial 0)"]
    assert worker.wait(30) == 0
    assert states(store) == ["waiting"] * 6


@pytest.mark.parametrize(
    ("worker", "dies"),
    [
        (Worker(job="local", host="here", pid=GONE), True),
        (Worker(job="local", host="there", pid=GONE), False),
        (Worker(job="12_1", host="here", pid=GONE), False),
        (Worker(job="local", host="here", pid=1), True),
    ],
    ids=["gone", "of_another_host", "of_a_job", "whose_number_another_process_has"],
)
def test_local_worker_without_process_is_stale(worker, dies):
    assert (stale_on_host("here")(worker) is not None) == dies


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("TIMEOUT", "timeout"),
        ("PREEMPTED", "preempted"),
        ("OUT_OF_MEMORY", "oom"),
        ("NODE_FAIL", "node"),
        ("CANCELLED", "killed"),
        ("COMPLETED", "killed"),
        ("GONE", "killed"),
        ("RUNNING", None),
        ("PENDING", None),
        ("UNKNOWN", None),
    ],
)
def test_ended_job_makes_worker_stale(state, cause):
    failure = failure_by_job_state([JobRow(id="12_1", state=state)])(Worker(job="12_1", host="n1", pid=1))
    assert (failure.cause if failure else None) == cause


def test_unknown_job_proves_nothing():
    assert failure_by_job_state([])(Worker(job="12_1", host="n1", pid=1)) is None


def test_error_line_of_slurm():
    text = "sbatch: info\nsbatch: error: invalid partition specified: x\nsbatch: fatal\n"
    assert error_line(text) == "invalid partition specified: x"


def test_doctor_finds_missing_store(study_folder):
    folder, _ = study_folder()
    folder.provenance_file.write_text('{"store": "sqlite:////nowhere/s.db", "home": "/"}')
    bad = [finding for finding in findings(folder.path) if finding.level == "bad" and finding.kind == "store"]
    assert "nowhere" in bad[0].text


def test_doctor_counts_trials(study_folder):
    folder, _ = study_folder()
    [found] = [finding for finding in findings(folder.path) if finding.kind == "store"]
    assert found.text.endswith(": 6 trials")


def test_doctor_leaves_no_files(tmp_path: Path):
    kinds = {finding.kind for finding in findings(tmp_path)}
    assert {"locks", "disk", "library", "cache"} <= kinds
    assert list(tmp_path.iterdir()) == []


def test_several_nodes_need_slurm(make_study):
    with pytest.raises(StudyFileError, match=r"resources.nodes: 2 needs Slurm"):
        check_local(make_study(resources={"nodes": 2}).config)


def test_gpus_limit_the_workers(study_folder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    code = "echo $CUDA_VISIBLE_DEVICES >> seen; sleep 0.2; echo {x}"
    sections = {"budget": {"trials": 6, "parallel": 3}, "resources": {"gpus": 2}}
    folder, store = study_folder(python=None, command=code, **sections)
    assert run_study(folder, store, folder.load().config, show=lambda: None)
    assert set((folder.path.parent / "home" / "seen").read_text().split()) == {"4,5", "6,7"}
    assert len({row.worker.pid for row in store.rows()}) == 2


def test_shortfall_is_explained(study_folder):
    folder, store = study_folder()
    config = folder.load().config
    assert "0 of 6 trials are done" in shortfall(config, store.rows(), now=datetime.now())
    assert run_workers(folder, store, count=1, show=lambda: None)
    assert shortfall(config, store.rows(), now=datetime.now()) == ""


def test_lock_names_its_holder(tmp_path: Path):
    lock = tmp_path / "lock"
    refused = pytest.raises(HpotuneError, match=f"it is already running: process {os.getpid()} on")
    with try_exclusive_lock(lock, what="it"), refused, try_exclusive_lock(lock, what="it"):
        pass
    with try_exclusive_lock(lock, what="it"):
        pass


def test_cancelled_run_starts_no_worker(study_folder):
    folder, store = study_folder(python=None, command="sleep 30; echo {x}", budget={"trials": 2})
    asked = []

    def show() -> None:
        if not asked and any(row.state == "running" for row in store.rows()):
            asked.append(cancel_study(folder, store))

    assert not run_workers(folder, store, count=1, show=show)
    assert [len(stopped) for stopped in asked] == [1]
    assert states(store) == ["waiting", "waiting"]


@pytest.mark.parametrize(
    ("command", "budget", "code"),
    [
        ("exit 3; echo {x}", {"trials": 9}, 1),  # fails alike, and is stopped before max_failed
        ("echo '{{\"value\": NaN}}'; true {x}", {"trials": 2, "max_failed": 0}, 1),
        ("echo {x}", {"trials": 2}, 0),
        ("echo {x}", {"trials": 2, "until": "2026-01-01"}, 0),
    ],
)
def test_failed_study_run_is_an_error(make_study, tmp_path, command, budget, code):
    study = make_study(python=None, command=command, budget=budget)
    done = subprocess.run(
        [sys.executable, "-m", "hpotune", "run", str(study.source.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
