"""scripts/slurm-cluster is a cluster that the other Slurm tests may trust.

`sudo scripts/slurm-cluster install`, then `sudo -E pytest -m slurm tests/slurm`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpotune.errors import ClusterError
from hpotune.lab.cluster_daemons import start_accounting
from hpotune.lab.cluster_files import remove, write_folder
from hpotune.lab.throwaway_cluster import Cluster

pytestmark = pytest.mark.slurm

Script = Callable[..., subprocess.CompletedProcess[str]]
Submit = Callable[..., str]


def said(*command: str) -> str:
    """A command's stdout, stripped; its failure is the test's."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


def wait_for(is_so: Callable[[], bool], *, what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"not so after {seconds} s: {what}"
        time.sleep(0.3)


@pytest.fixture
def submit(slurm_cluster: Path, tmp_path: Path) -> Iterator[Submit]:
    """sbatch of a shell script, returning the job's id; what still runs after the test is cancelled."""
    jobs: list[str] = []

    def submit_script(script: str, *options: str) -> str:
        path = tmp_path / f"job{len(jobs)}.sh"
        path.write_text(f"#!/bin/bash\ncd {tmp_path}\n{script}\n")
        jobs.append(said("sbatch", "--parsable", f"--output={tmp_path}/%j.out", *options, str(path)))
        return jobs[-1]

    yield submit_script
    if jobs:
        subprocess.run(["scancel", "--quiet", *jobs])


def states(job: str) -> list[str]:
    """sacct's states of a job, one a start of it, oldest first."""
    lines = said("sacct", "-X", "-D", "-n", "-P", "-o", "State", "-j", job).splitlines()
    return [line.split()[0] for line in lines]  # "CANCELLED by 0"


def wait_for_end(job: str) -> None:
    """Returns when all of a job has ended. sbatch --wait would look every 10 s only."""
    alive = {"PENDING", "RUNNING"}
    wait_for(lambda: bool(found := states(job)) and not alive & set(found), what=f"job {job} has ended")


@pytest.mark.usefixtures("slurm_cluster")
def test_nodes_and_gpus_are_as_declared() -> None:
    listed = said("sinfo", "-h", "-N", "-p", "a100", "-o", "%N %c %m %G").splitlines()
    assert listed == [f"n{i} 64 256000 gpu:a100:4" for i in (1, 2, 3, 4)]


def test_array_keeps_its_throttle(submit: Submit, tmp_path: Path) -> None:
    times = "date +%s.%N >> times.$SLURM_ARRAY_TASK_ID"
    wait_for_end(submit(f"{times}; sleep 1; {times}", "--array=0-5%2"))
    spans = [tuple(map(float, path.read_text().split())) for path in tmp_path.glob("times.*")]
    assert len(spans) == 6
    assert max(sum(start <= began < end for start, end in spans) for began, _ in spans) == 2


@pytest.mark.parametrize("gpus", ["--gpus-per-node=a100:2", "--gres=gpu:a100:2"])
def test_nested_srun_on_two_nodes(submit: Submit, tmp_path: Path, gpus: str) -> None:
    ranks = "srun --overlap --nodes=2 --ntasks=4 --ntasks-per-node=2 --distribution=block"
    rank = "echo $SLURM_PROCID $SLURMD_NODENAME $SLURM_LOCALID $CUDA_VISIBLE_DEVICES"
    task = f"[ $SLURM_PROCID != 0 ] || {ranks} bash -c '{rank}' > ranks\n"
    (tmp_path / "task.sh").write_text(task)
    wait_for_end(submit("srun bash task.sh", "--nodes=2", "--ntasks-per-node=1", gpus))
    lines = sorted((tmp_path / "ranks").read_text().splitlines())
    nodes = [line.split()[1] for line in lines]
    assert [line.split()[::2] for line in lines] == [["0", "0"], ["1", "1"], ["2", "0"], ["3", "1"]]
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    assert all(len(line.split()[3].split(",")) == 2 for line in lines)


def test_sacct_reports_ended_jobs(submit: Submit) -> None:
    good, bad, long = submit("true"), submit("exit 7"), submit("sleep 300")
    said("scancel", long)
    for job in (good, bad, long):
        wait_for_end(job)
    assert [states(job) for job in (good, bad, long)] == [["COMPLETED"], ["FAILED"], ["CANCELLED"]]


def test_urgent_job_preempts(submit: Submit) -> None:
    whole_node = ("--nodelist=n4", "--gpus-per-node=a100:4")
    job = submit("sleep 300", *whole_node)
    wait_for(lambda: states(job) == ["RUNNING"], what="the first job runs")
    wait_for_end(submit("true", "--partition=urgent", *whole_node))
    wait_for(lambda: states(job) == ["PREEMPTED", "RUNNING"], what="it runs again")


def test_stop_refuses_foreign_cluster(
    cluster_script: Script, tmp_path_factory: pytest.TempPathFactory
) -> None:
    foreign = tmp_path_factory.mktemp("c")  # tmp_path is too long for a socket's name
    (foreign / "slurm.conf").touch()
    for env in ({"HPOTUNE_CLUSTER_DIR": str(foreign)}, {"SLURM_CONF": str(foreign / "slurm.conf")}):
        done = cluster_script("stop", **env)
        assert done.returncode == 3
        assert str(foreign) in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (foreign / "slurm.conf").exists()


def test_a_second_start_changes_nothing(cluster_script: Script, slurm_cluster: Path) -> None:
    controller = ("pgrep", "-f", f"slurmctld -f {slurm_cluster}")
    before = said(*controller)
    again = cluster_script("start")
    assert again.returncode == 0
    assert "already running" in again.stderr
    assert said(*controller) == before


def test_lab_start_finds_the_running_one(slurm_cluster: Path) -> None:
    command = [sys.executable, "-m", "hpotune", "lab", "start"]
    found = json.loads(said(*command, "--json"))
    assert found == {
        "slurm": "throw-away",
        "started": False,
        "partitions": ["a100*", "urgent"],
        "export": f"export SLURM_CONF={slurm_cluster}",
    }
    assert said(*command) == found["export"]  # a shell may eval it


def test_ended_daemon_ends_the_wait(cluster_script: Script, tmp_path_factory: pytest.TempPathFactory) -> None:
    cluster = Cluster(tmp_path_factory.mktemp("d") / "c")
    write_folder(cluster)
    (cluster.folder / "run/mariadb.socket").mkdir()  # so mariadbd starts, and ends where it would listen
    try:
        with pytest.raises(ClusterError) as caught:
            start_accounting(cluster)
    finally:
        remove(cluster)
    assert str(caught.value).startswith("mariadbd died: ")
    assert "run/mariadb.socket" in str(caught.value)
    assert "mariadbd.log" in str(caught.value)


def test_stop_leaves_nothing_behind(cluster_script: Script, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("d") / "c"
    mark = f"# slurm-cluster {folder}\n"
    started = cluster_script("start", HPOTUNE_CLUSTER_DIR=str(folder))
    try:
        assert started.returncode == 0, started.stderr
        assert mark in Path("/etc/hosts").read_text()
        assert {socket.gethostbyname(node) for node in ("n1", "n4")} == {"127.0.0.1"}
    finally:
        stopped = cluster_script("stop", HPOTUNE_CLUSTER_DIR=str(folder))
    assert stopped.returncode == 0, stopped.stderr
    assert not folder.exists()
    assert mark not in Path("/etc/hosts").read_text()
    assert subprocess.run(["pgrep", "-f", f"{folder}/"]).returncode == 1
