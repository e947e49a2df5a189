"""Install, start and stop a throw-away Slurm cluster on one Debian or Ubuntu machine without systemd. Needs root.

Four nodes n1 to n4 with four A100, 64 CPUs and 256 GB each, all of them this machine; partitions a100 (default) and
urgent, whose jobs preempt and requeue those of a100. Scheduler, arrays, srun and sacct are real. The GPUs are copies of
/dev/null; CPUs and memory are only declared. Tried with Debian 12 (Slurm 22.05, MariaDB 10.11) and Debian 13 (Slurm
24.11, MariaDB 11.8).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpotune.errors import ClusterError
from hpotune.lab.cluster_files import add_hosts, remove, write_folder
from hpotune.lab.throwaway_cluster import DAEMONS, MARK, NODES, SYSTEM_PATH, Cluster

PACKAGES = ["slurm-wlm", "slurmdbd", "mariadb-server", "munge"]
COMMANDS = [
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "sbatch",
    "sacctmgr",
    "munged",
    "mariadbd",
    "mariadb-install-db",
]
POLICY = Path("/usr/sbin/policy-rc.d")
FOLDER = "/tmp/hpotune-slurm-cluster"


def missing_commands() -> list[str]:
    """The commands of Slurm, MariaDB and munge that are not installed."""
    return [name for name in COMMANDS if not shutil.which(name, path=SYSTEM_PATH)]


def install() -> str:
    """Install the packages, without starting what they bring. Returns what was done.

    Raises: ClusterError where apt-get is missing or fails.
    """
    if not missing_commands():
        return "all commands are there already"
    if not shutil.which("apt-get"):
        raise ClusterError(f"{', '.join(missing_commands())} not found, nor apt-get; needs Debian or Ubuntu")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    policy = not POLICY.exists()
    if policy:  # Debian's own way to install a package without starting its service
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        subprocess.run(
            ["apt-get", "update"], env=environment
        )  # the install may succeed even where this fails
        if subprocess.run(command, env=environment).returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed; needs what apt-get says above")
    finally:
        if policy:
            POLICY.unlink()
    return "installed"


def start(cluster: Cluster) -> str:
    """Return with all nodes idle and sacct answering; at once where the cluster is up already. Returns what was done.

    Raises: ClusterError.
    """
    if missing := missing_commands():
        raise ClusterError(f"{', '.join(missing)} not found; needs Slurm: run `{cluster.program} install`")
    stopped = cluster.stopped()
    if not stopped:
        return f"already running in {cluster.folder}"
    if cluster.processes():
        raise ClusterError(
            f"{cluster.folder} is half up, without {', '.join(stopped)}; run `{cluster.program} stop` first"
        )
    began = time.monotonic()
    write_folder(cluster)
    add_hosts(cluster)  # before the daemons, which read it
    start_accounting(cluster)
    start_slurm(cluster)
    return f"up after {time.monotonic() - began:.0f} s, logs in {cluster.folder}/log"


def start_accounting(cluster: Cluster) -> None:
    """Start munged, mariadbd and slurmdbd, with the cluster, an account and root in the database."""
    folder = cluster.folder
    munge = {"key-file": "etc/munge.key", "socket": "run/munge.socket", "pid-file": "run/munged.pid",
             "seed-file": "run/munged.seed", "log-file": "log/munged.log"}  # fmt: skip
    # --force: a folder under /tmp is less guarded than munged would like
    cluster.launch(
        "munged", "--force", *(f"--{name}={folder}/{path}" for name, path in munge.items()), daemon="munged"
    )
    data = ("--no-defaults", "--user=root", f"--datadir={folder}/mariadb")
    cluster.launch("mariadb-install-db", *data, "--skip-test-db", "--auth-root-authentication-method=socket")
    # --innodb-...=0: the data may be lost with the machine, no transaction waits for the disk
    command = ["mariadbd", *data, "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]
    command += [f"--socket={folder}/run/mariadb.socket", f"--pid-file={folder}/run/mariadb.pid"]
    with open(cluster.log("mariadbd"), "wb") as log, open(os.devnull) as nothing:
        subprocess.Popen(
            command, env=cluster.env, stdin=nothing, stdout=log, stderr=log, start_new_session=True
        )
    cluster.wait_for("mariadb-admin", "--no-defaults", "ping", alive=DAEMONS[:2])
    # slurmdbd would make it, but with MariaDB 11.8 its first connection is of no use after that
    cluster.launch("mariadb-admin", "--no-defaults", "create", "slurm_acct_db")
    cluster.launch("slurmdbd", daemon="slurmdbd")
    cluster.wait_for("sacctmgr", "--noheader", "show", "cluster", alive=DAEMONS[:3])
    # slurmctld must find its cluster in the database
    cluster.launch("sacctmgr", "-i", "add", "cluster", "hpotune")
    cluster.launch("sacctmgr", "-i", "add", "account", "hpotune", "Cluster=hpotune")
    cluster.launch("sacctmgr", "-i", "add", "user", "root", "DefaultAccount=hpotune")


def start_slurm(cluster: Cluster) -> None:
    """Start slurmctld and a slurmd a node; return when they know each other."""
    cluster.launch("slurmctld", "-f", str(cluster.conf), daemon="slurmctld")
    for node in NODES:
        cluster.launch("slurmd", "-f", str(cluster.conf), "-N", node, daemon=f"slurmd {node}")
    states = ("sinfo", "--noheader", "--Node", "--partition=a100", "--format=%T")
    cluster.wait_for(*states, alive=DAEMONS, prints=["idle"] * len(NODES))
    cluster.wait_for("sacct", alive=DAEMONS)


def stop(cluster: Cluster) -> str:
    """Remove the cluster: no process, file, device or line in /etc/hosts is left. Returns what was done.

    Raises: ClusterError for a folder that `start` did not make.
    """
    if not cluster.folder.exists():
        return f"nothing is in {cluster.folder}"
    if not cluster.is_ours():
        raise ClusterError(f"{cluster.folder} was not made by `{cluster.program} start`; remove it by hand")
    # Where Slurm still can, it ends the jobs itself: so a waiting salloc hears of it and goes.
    patience_s = 0 if "slurmctld" in cluster.stopped() else 15  # KillWait and some more
    until = time.monotonic() + patience_s
    listing = ("squeue", "--noheader", "--format=%F")
    while time.monotonic() < until and (jobs := cluster.call(*listing, timeout_s=5).stdout.split()):
        cluster.call("scancel", *sorted(set(jobs)), timeout_s=5)
        time.sleep(0.5)
    remove(cluster)
    return f"stopped, {cluster.folder} is gone"


def status(cluster: Cluster) -> tuple[str, bool]:
    """Which daemons run and what sinfo says, and whether all run and it answers."""
    stopped = cluster.stopped()
    if stopped == DAEMONS:
        return f"nothing runs in {cluster.folder}; start it with `{cluster.program} start`", False
    lines = [f"{name:<10} {'stopped' if name in stopped else 'running'}" for name in DAEMONS]
    nodes = cluster.call("sinfo", "--format=%9P %5D %10T %9N %G", timeout_s=10)
    text = "\n".join([*lines, nodes.stdout.strip() or " ".join(nodes.stderr.split())])
    return text, not stopped and nodes.returncode == 0


def environment_line(cluster: Cluster) -> str:
    """What a shell must eval to use the cluster.

    Raises: ClusterError where it does not run.
    """
    if stopped := cluster.stopped():
        raise ClusterError(f"not running: {', '.join(stopped)}; run `{cluster.program} start`")
    return f"export SLURM_CONF={cluster.conf}"


def allowed_cluster(verb: str, env: Mapping[str, str], *, program: str = "hpotune lab") -> Cluster:
    """The cluster of $HPOTUNE_CLUSTER_DIR. `env`: of the caller.

    Raises: ClusterError where this caller must not touch it.
    """
    folder = env.get("HPOTUNE_CLUSTER_DIR") or FOLDER
    cluster = Cluster(Path(folder).resolve(), program)
    if not re.fullmatch(
        r"[A-Za-z0-9._/-]{2,60}", str(cluster.folder)
    ):  # slurm.conf's syntax, a socket's length
        raise ClusterError(f"HPOTUNE_CLUSTER_DIR={folder!r}; needs at most 60 of A-Z a-z 0-9 . _ - /")
    if os.geteuid() != 0:
        raise ClusterError(
            f"user id {os.geteuid()} is not root; needs root for Slurm's daemons: run it with sudo"
        )
    conf = env.get("SLURM_CONF")
    if conf and verb in ("start", "stop") and Path(conf).resolve() != cluster.conf:
        raise ClusterError(f"SLURM_CONF={conf} is not in {cluster.folder}; run `unset SLURM_CONF` first")
    if conf and verb == "stop" and "SLURMD_NODENAME" in env:
        raise ClusterError(f"stop inside job {env.get('SLURM_JOB_ID')} would end itself; run it outside")
    return cluster


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """A lock of all calls on this machine: status waits for a start under way."""
    with open(__file__) as lock:  # a file that is always there
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def real_slurm(env: Mapping[str, str]) -> tuple[str, ...]:
    """The partitions of a Slurm that answers here and is no throw-away cluster; empty where there is none."""
    conf = env.get("SLURM_CONF")
    if (conf and (Path(conf).resolve().parents[1] / MARK).is_file()) or shutil.which("sinfo") is None:
        return ()
    command = ["sinfo", "--noheader", "--format=%P"]
    try:
        done = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=15)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(dict.fromkeys(done.stdout.split())) if done.returncode == 0 else ()
