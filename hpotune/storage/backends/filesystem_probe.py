"""Which storage the file system of a folder supports, tested by processes that compete for its locks."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpotune.workspace.mounts import NETWORK, existing_folder, mount_type

LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs"})
"""Types on which SQLite is known to be safe: file systems of one host."""
PROCESSES, WRITES = 4, 25
RACE_S = 120.0
"""How long the processes may take; then they are killed, and the locks do not hold."""
_ADVICE = {
    (
        "nfs",
        "nfs4",
    ): "network file system: SQLite is not safe on it (store: auto takes a journal, or PostgreSQL), and "
    "other nodes see a new file seconds late",
    (
        "lustre",
    ): "parallel file system: slow with many small files; keep few studies in a folder, and use PostgreSQL for "
    "many workers",
    (
        "beegfs",
        "beegfs_nodev",
    ): "parallel file system: locks across nodes need tuneUseGlobalFileLocks=true; use "
    "PostgreSQL for many workers",
    ("gpfs", "mmfs"): "parallel file system: fine for studies; use PostgreSQL for many workers",
    ("ceph", "cephfs"): "parallel file system: fine for studies; use PostgreSQL for many workers",
    ("tmpfs", "ramfs"): "memory of this machine: other nodes do not see it, and it is lost at a restart",
    (
        "overlay",
    ): "inside a container: lost with it, and other nodes do not see it; bind a folder of the host",
}

# Each process adds 1 to a number WRITES times under the lock that its arguments name.
# A lost update means a lock that does not hold.
_RACER = """
import os, sqlite3, sys, time
kind, path, writes = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(writes):
    if kind == "sqlite":
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE n SET v = ?", (db.execute("SELECT v FROM n").fetchone()[0] + 1,))
        db.execute("COMMIT"); db.close()
    elif kind == "flock":
        import fcntl
        with open(path, "r+") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            v = int(f.read()); f.seek(0); f.write(str(v + 1)); f.flush(); os.fsync(f.fileno())
    else:
        while True:
            try: os.symlink("x", path + ".lock"); break
            except FileExistsError: time.sleep(0.001)
        with open(path) as f: v = int(f.read())
        with open(path, "w") as f: f.write(str(v + 1)); f.flush(); os.fsync(f.fileno())
        os.unlink(path + ".lock")
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """The storage that a folder supports, and the reason as text."""

    choice: Literal["sqlite", "journal"] | None
    why: str
    kind: str
    """The file system's type."""


def network_type(folder: Path) -> str:
    """The type of the file system of a path if several hosts mount it; empty for a local or an unknown one."""
    kind = mount_type(folder)
    return kind if kind.removeprefix("fuse.") in NETWORK else ""


def sqlite_refusal(file: Path) -> str:
    """Why an SQLite store may not be this file, and the next step; empty if it may."""
    kind = network_type(file.parent)
    return kind and (
        f"SQLite loses or doubles trials on a network file system where locks do not hold between nodes, and {file} is "
        f"on {kind}; write store: journal or a PostgreSQL URL, or `sqlite_on_network: true` if they hold"
    )


def advice(kind: str, *, slurm: bool) -> str:
    """What users should know about this type of file system; empty for nothing. `slurm`: compute nodes must see it."""
    kind = kind.removeprefix("fuse.")
    for names, words in _ADVICE.items():
        if kind in names:
            return words
    if kind in LOCAL:
        return (
            "compute nodes do not see it unless it is exported: put studies on shared storage"
            if slurm
            else ""
        )
    return f"{kind} is an unknown type: see the result of the lock test below"


def flock_holds(folder: Path) -> str:
    """The error of a flock test between processes (flock guards submitting); empty if it works."""
    try:
        _race("flock", existing_folder(folder))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return str(error)
    return ""


def probe(folder: Path) -> Probe:
    """The storage for a folder, chosen by a test of locks in it or in its nearest existing parent."""
    kind = mount_type(folder)
    wanted: Literal["sqlite", "journal"] = "sqlite" if kind in LOCAL else "journal"
    try:
        seconds = _race(wanted, existing_folder(folder))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Probe(
            choice=None, kind=kind, why=f"{wanted} locks do not hold on this file system ({kind}): {error}"
        )
    why = f"{kind}: {PROCESSES} processes x {WRITES} locked writes in {seconds:.1f} s, none lost"
    if wanted == "journal":
        why += f"; SQLite is not safe on a network file system, and {kind} is not known as a local one"
    return Probe(choice=wanted, kind=kind, why=why)


def _race(kind: str, folder: Path) -> float:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".hpotune-probe-") as scratch:
        path = Path(scratch, "counter")
        _start_counter(kind, path)
        start = time.monotonic()
        command = [sys.executable, "-S", "-c", _RACER, kind, str(path), str(WRITES)]
        with ExitStack() as stack:
            racers = [stack.enter_context(_ended_after(command)) for _ in range(PROCESSES)]
            errors = [racer.communicate(timeout=RACE_S)[1] for racer in racers]
        if any(racer.returncode for racer in racers):
            raise ValueError(next(text for text in errors if text).strip().splitlines()[-1])
        total = _counted(kind, path)
    if total != PROCESSES * WRITES:
        raise ValueError(f"{PROCESSES * WRITES - total} of {PROCESSES * WRITES} locked writes were lost")
    return time.monotonic() - start


@contextmanager
def _ended_after(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end: one that hangs in a lock would hold it, and keep the folder, for ever."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _start_counter(kind: str, path: Path) -> None:
    if kind != "sqlite":
        path.write_text("0", encoding="utf-8")
        return
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE n (v INTEGER); INSERT INTO n VALUES (0);")
    db.close()


def _counted(kind: str, path: Path) -> int:
    if kind != "sqlite":
        return int(path.read_text(encoding="utf-8"))
    db = sqlite3.connect(path)
    total = int(db.execute("SELECT v FROM n").fetchone()[0])
    db.close()
    return total
