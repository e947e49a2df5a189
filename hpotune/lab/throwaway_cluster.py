"""A throw-away Slurm cluster: its folder, its processes, its commands. Its daemons are started in cluster_daemons.py.

A process is known as ours by the folder's path on its command line or in its environment, never by a number in a pid
file, which another process may bear by now.
"""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from hpotune.errors import ClusterError

NODES = ["n1", "n2", "n3", "n4"]
DAEMONS = ["munged", "mariadbd", "slurmdbd", "slurmctld", *(f"slurmd {node}" for node in NODES)]
MARK = "made-by-slurm-cluster"
"""A file in the folder; it holds the folder's own path."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WAIT_S = 60
"""For each thing that the start waits for; all of it takes 5 s on two idle cores."""


@dataclass(frozen=True, kw_only=False, slots=True)
class Cluster:
    """The cluster of one folder."""

    folder: Path
    program: str = "hpotune lab"
    """What messages name as the next step: `PROGRAM start`, `PROGRAM stop`."""

    @property
    def conf(self) -> Path:
        """Its slurm.conf."""
        return self.folder / "etc/slurm.conf"

    @property
    def hosts_mark(self) -> str:
        """How our lines in /etc/hosts end, and no other."""
        return f" # slurm-cluster {self.folder}"

    @property
    def env(self) -> dict[str, str]:
        """The environment of our daemons and commands: nothing of the caller's, which may hold secrets."""
        database = f"{self.folder}/run/mariadb.socket"  # slurmdbd has no setting for it, its library has this
        return {
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(self.conf),
            "MYSQL_UNIX_PORT": database,
        }

    def is_ours(self) -> bool:
        """Whether `start` made this folder, and made it here: a copy of it names another folder."""
        mark = self.folder / MARK
        return mark.is_file() and mark.stat().st_uid == 0 and mark.read_text() == str(self.folder)

    def call(self, *command: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """A command run on this cluster; exit code 124 where it does not end."""
        try:
            return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no answer within {timeout_s} s")

    def launch(self, *command: str, daemon: str = "") -> None:
        """Start a daemon (one of DAEMONS) that goes into the background by itself, or run a command.

        Raises: ClusterError where it fails.
        """
        done = self.call(*command, timeout_s=WAIT_S)
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or (daemon and last_errors(self.log(daemon)))
            said = said or f"exit code {done.returncode}"
            raise ClusterError(f"`{' '.join(command)}` failed: {said}; logs are in {self.folder}/log")

    def wait_for(self, *command: str, alive: list[str], prints: list[str] | None = None) -> None:
        """Return once the command succeeds and prints these words, if any are given.

        Raises ClusterError once one of the daemons `alive` does not run, or after WAIT_S.
        """
        until, patience_s = (
            time.monotonic() + WAIT_S,
            2.0,
        )  # sinfo itself tries for 20 s where slurmctld does not run
        while True:
            done = self.call(*command, timeout_s=patience_s)
            if done.returncode == 0 and prints in (None, done.stdout.split()):
                return
            self.check_alive(alive)
            if time.monotonic() > until:
                said = " ".join((done.stderr or done.stdout).split())
                raise ClusterError(f"`{' '.join(command)}` still says {said!r} after {WAIT_S} s; "
                                   f"look in {self.folder}/log, then run `{self.program} stop`")  # fmt: skip
            patience_s = min(2 * patience_s, 30)
            time.sleep(0.2)

    def check_alive(self, daemons: list[str]) -> None:
        """Raises: ClusterError, with what its log says, where one of the daemons does not run."""
        stopped = set(self.stopped())
        if stopped.intersection(
            daemons
        ):  # look twice: one that goes into the background seems stopped for an instant
            time.sleep(0.2)
            stopped &= set(self.stopped())
        for daemon in daemons:
            if daemon in stopped:
                log = self.log(daemon)
                raise ClusterError(f"{daemon} died: {last_errors(log) or 'no word in its log'}; "
                                   f"look in {log}, then run `{self.program} stop`")  # fmt: skip

    def log(self, daemon: str) -> Path:
        """The log of one of DAEMONS: slurmd-n1.log of "slurmd n1"."""
        return self.folder / "log" / f"{daemon.replace(' ', '-')}.log"

    def processes(self) -> dict[int, str]:
        """Pid -> name of each live process of this cluster: daemons, job steps, what jobs have started."""
        inside, conf = f"{self.folder}/".encode(), f"SLURM_CONF={self.conf}".encode()
        ours = {name.split()[0] for name in DAEMONS} | {"slurmstepd", "srun"}
        found: dict[int, str] = {}
        children: dict[int, list[tuple[int, str]]] = {}
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (proc / "cmdline").read_bytes()
                environment = (proc / "environ").read_bytes().split(b"\0")
                name, _, rest = (proc / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:  # gone meanwhile, or out of reach even for root: not ours
                continue
            children.setdefault(int(rest.split()[1]), []).append((int(proc.name), name))
            in_job = conf in environment and any(
                entry.startswith(b"SLURMD_NODENAME=") for entry in environment
            )
            if in_job or (name in ours and (inside in arguments or conf in environment)):
                node = re.search(rb"-N\0?(\w+)", arguments) if name == "slurmd" else None
                found[int(proc.name)] = f"{name} {node[1].decode()}" if node else name
        pending = list(found)
        while pending:
            new = {pid: name for pid, name in children.get(pending.pop(), []) if pid not in found}
            found.update(new)
            pending.extend(new)
        return found

    def stopped(self) -> list[str]:
        """The daemons that should live and do not; all of them where the folder is not there."""
        live = set(self.processes().values()) if self.is_ours() else set()
        return [name for name in DAEMONS if name not in live]


def last_errors(log: Path) -> str:
    """The last two lines of a log that report an error, mostly the cause and what came of it; "" without any."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)]
    return "; ".join(
        re.sub(r"^\[\S+\]", "", line).strip() for line in errors[-2:]
    )  # without Slurm's time stamp
