"""The test bed of chaos: a throw-away Slurm cluster, a throw-away PostgreSQL, a small disk; all gone at the end.

Knows how to stop, restart, fill and kill what is there; which of it and when is faults.py's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpotune.lab.throwaway_cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
DISK_MB = 96
LEASE_S = 20
"""Of the study's workers."""
PATIENCE_S = 60
"""How long a command is repeated while Slurm's controller is away."""


@dataclass(kw_only=True)
class Testbed:
    """One cluster, its store's server and its disk."""

    folder: Path
    """Everything lies in it."""
    cluster: Cluster
    """The throw-away Slurm."""
    env: dict[str, str]
    """Of hpotune's commands and of the jobs they submit."""
    postgres: Any = None
    disk_is_small: bool = True
    """False where no file system may be mounted: then it cannot be filled."""
    study: Path = Path()
    """The file of the study that runs now."""
    locks: dict[str, threading.Lock] = field(default_factory=dict)
    """One a daemon: two faults at once may not restart the same."""
    crashes: list[tuple[float, float]] = field(default_factory=list)
    """When a controller that crashed by itself was last heard of, and when it ran again; in Unix seconds."""
    heard: float = field(default_factory=time.time)
    """When the controller gave its last answer."""

    @property
    def disk(self) -> Path:
        """The small file system on which studies lie."""
        return self.folder / "disk"

    @property
    def bad_node(self) -> Path:
        """Names the node that fails every trial, while it stands."""
        return self.folder / "bad-node"

    @property
    def garbage(self) -> Path:
        """While it stands Slurm's commands print what it names: bytes, or a banner first."""
        return self.folder / "garbage"

    def command(self, verb: str, *arguments: object) -> list[str]:
        """The command of one verb."""
        return [sys.executable, "-m", "hpotune", verb, *map(str, arguments)]

    def hpotune(self, verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """One verb, as a user types it."""
        return subprocess.run(
            self.command(verb, *arguments),
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=self.folder,
        )

    def slurm(self, *command: str) -> str:
        """What a command of Slurm prints; repeated while the controller is away, empty where it refuses."""
        until = time.monotonic() + PATIENCE_S
        while True:
            done = self.cluster.call(*command)
            away = (
                done.returncode == 124 or "contact" in done.stderr.lower() or "connect" in done.stderr.lower()
            )
            if not away:
                self.heard = time.time()
            if not away or time.monotonic() > until:
                return str(done.stdout) if done.returncode == 0 else ""
            self.revive()
            time.sleep(1)

    def revive(self) -> None:
        """Start the controller again where it has ended and no fault is about to do so: it crashed by itself."""
        lock, heard = self.lock("slurmctld"), self.heard
        if not lock.acquire(blocking=False):
            return
        try:
            if self.daemon("slurmctld") is None:
                self.start("slurmctld")
                self.crashes.append((heard, time.time()))
        finally:
            lock.release()

    def lock(self, name: str) -> threading.Lock:
        """The lock of a daemon."""
        return self.locks.setdefault(name, threading.Lock())

    def daemon(self, name: str) -> int | None:
        """The process of `slurmctld`, `slurmdbd` or `slurmd n3`; None if it does not run."""
        found = [pid for pid, word in self.cluster.processes().items() if word == name]
        return min(found, default=None)

    def restart(self, name: str, *, number: int, away_s: float) -> None:
        """Ends a daemon by a signal and starts it again after some seconds."""
        with self.lock(name):
            pid = self.daemon(name)
            if pid is not None:
                end(pid, number)
            time.sleep(away_s)
            self.start(name)

    def start(self, name: str) -> None:
        """Start a daemon of Slurm that does not run; try again while its port is still taken."""
        program, _, node = name.partition(" ")
        more = ["-N", node] if node else []
        config = [] if program == "slurmdbd" else ["-f", str(self.cluster.conf)]
        for _ in range(20):
            if self.cluster.call(program, *config, *more).returncode == 0 and self.daemon(name):
                return
            time.sleep(1)
        raise RuntimeError(f"{name} does not start; see {self.cluster.folder}/log")

    def fill_disk(self, seconds: float) -> None:
        """Leaves not a byte on the disk for so long."""
        ballast, until = self.disk / ".ballast", time.monotonic() + seconds
        with self.lock("disk"):
            try:
                with ballast.open("ab", buffering=0) as file:
                    while time.monotonic() < until:
                        with suppress(OSError):
                            while file.write(bytes(2**16)):
                                pass
                        time.sleep(0.05)
            finally:
                ballast.unlink()

    def kill_node(self, node: str) -> None:
        """Everything of a node at once, as when its power goes."""
        slurmd = self.daemon(f"slurmd {node}")
        for pid in [*([slurmd] if slurmd else []), *self.on_node(node)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def on_node(self, node: str) -> list[int]:
        """Processes of jobs on a node, and the slurmstepd above them."""
        found, mark = set(), f"SLURMD_NODENAME={node}".encode()
        for pid in self.cluster.processes():
            with suppress(OSError, IndexError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found |= {pid}
                    parent = parent_of(pid)
                    if Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd"):
                        found |= {parent}
        return sorted(found)


def parent_of(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def end(pid: int, number: int) -> None:
    """Sends a signal and returns when the process is gone; after 10 s it is killed."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        for tick in range(150):
            time.sleep(0.1)
            os.kill(pid, 0 if tick < 100 else signal.SIGKILL)


@contextmanager
def made(*, store: str, without: Sequence[str]) -> Iterator[Testbed]:
    """A test bed that runs, and is removed afterwards."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="hpotune-chaos-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        (folder / "disk").mkdir()
        small = mount(folder / "disk")
        if small:
            stack.callback(subprocess.run, ["umount", "-l", folder / "disk"], check=False)
        clean = {
            key: word for key, word in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))
        }
        env = clean | {"HPOTUNE_CLUSTER_DIR": f"{folder}-slurm", "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
        env["CHAOS_BAD_NODE"] = str(folder / "bad-node")
        stack.callback(cluster_script, "stop", env)
        cluster_script("start", env)
        cluster = Cluster(Path(env["HPOTUNE_CLUSTER_DIR"]))
        testbed = Testbed(folder=folder, cluster=cluster, env=env, disk_is_small=small)
        env |= {"SLURM_CONF": str(cluster.conf)}
        env |= {"PATH": hidden(folder / "bin", without)} if without else {}
        env |= {"PATH": wrapped(testbed, folder / "wrapped", env["PATH"])}
        enforce_limits(testbed)
        if store == "postgres":
            testbed.postgres = server(stack)
            env["PGPASSWORD"] = os.environ["PGPASSWORD"] = testbed.postgres.password
        yield testbed


def mount(folder: Path) -> bool:
    """Makes the folder a small file system of its own; False where this machine does not allow it."""
    options = f"size={DISK_MB}m,mode=755"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "chaos", folder], capture_output=True, check=False
    )
    return done.returncode == 0


def cluster_script(verb: str, env: dict[str, str]) -> None:
    """scripts/slurm-cluster VERB."""
    own = {key: word for key, word in env.items() if key != "SLURM_CONF"}
    done = subprocess.run(
        [ROOT / "scripts/slurm-cluster", verb], env=own, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"scripts/slurm-cluster {verb}: {done.stderr.strip()}")


def server(stack: ExitStack) -> Any:  # noqa: ANN401 - tests/fixtures/postgres.py is imported here only
    """A PostgreSQL server that accepts connections, gone with the stack."""
    sys.path.insert(0, str(ROOT))
    from tests.fixtures.postgres import Postgres

    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        raise SystemExit("no PostgreSQL here: apt-get install postgresql, or --store sqlite")
    postgres = Postgres.make(found[-1].parent)
    stack.callback(shutil.rmtree, postgres.folder, ignore_errors=True)
    stack.callback(postgres.stop)
    postgres.start()
    return postgres


def hidden(folder: Path, names: Sequence[str]) -> str:
    """A PATH on which everything stands but these commands."""
    folder.mkdir()
    for path in os.environ["PATH"].split(os.pathsep):
        for file in Path(path).iterdir() if Path(path).is_dir() else ():
            if file.name not in names and not (folder / file.name).is_symlink():
                (folder / file.name).symlink_to(file)
    return str(folder)


WRAPPER = """\
#!/bin/sh
case "$(cat {flag} 2>/dev/null)" in
bytes) head -c 2000 /dev/urandom; exit 0 ;;
banner) printf 'Welcome to \\377\\376 the cluster\\n***\\n' ;;
esac
exec {program} "$@"
"""


def wrapped(testbed: Testbed, folder: Path, path: str) -> str:
    """A PATH on which Slurm's commands that answer questions print garbage while `testbed.garbage` stands."""
    folder.mkdir()
    for name in ("squeue", "sacct", "scontrol", "sinfo"):
        if program := shutil.which(name, path=path):
            (folder / name).write_text(WRAPPER.format(flag=testbed.garbage, program=program))
            (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{path}"


def enforce_limits(testbed: Testbed) -> None:
    """Let the controller hold users to their limits, which it reads at its start only."""
    with testbed.cluster.conf.open("a") as conf:
        conf.write("AccountingStorageEnforce=limits\n")
    testbed.restart("slurmctld", number=signal.SIGTERM, away_s=0)
    until = time.monotonic() + PATIENCE_S  # until the nodes have registered their GPUs
    gpus = ("sbatch", "--test-only", "-p", "a100", "-N", "4", "--gres=gpu:a100:4", "--wrap", "true")
    while testbed.cluster.call(*gpus).returncode and time.monotonic() < until:
        time.sleep(0.5)


def answer(text: str) -> Any:  # noqa: ANN401 - JSON
    """What a verb printed with --json; None where it is none."""
    with suppress(ValueError):
        return json.loads(text)
    return None
