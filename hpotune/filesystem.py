"""What the file system under a folder can be trusted with, found by processes that really race for its locks."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs"})
"""Types that are known to keep SQLite's promises: those of one host."""
PROCESSES, WRITES = 4, 25

# Each process adds 1 to a number WRITES times under the lock it is told to use.
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
    """What was found: the store a folder can carry, and the reason in words."""

    choice: Literal["sqlite", "journal"] | None
    why: str
    kind: str
    """The file system's type."""


def mount_type(folder: Path) -> str:
    """The type of the file system a path lies on (`ext4`, `nfs4`, `lustre`), `unknown` where /proc does not tell."""
    path = str(_existing(folder).resolve())
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return kind
    for line in mounts:
        point, found = line.split()[1].replace("\\040", " "), line.split()[2]
        if len(point) >= len(best) and (path + "/").startswith(point.rstrip("/") + "/"):
            best, kind = point, found
    return kind


def probe(folder: Path) -> Probe:
    """Races processes for locks in the folder (or its nearest existing parent) and chooses a store by what held."""
    kind = mount_type(folder)
    wanted: Literal["sqlite", "journal"] = "sqlite" if kind in LOCAL else "journal"
    try:
        seconds = _race(wanted, _existing(folder))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Probe(
            choice=None, kind=kind, why=f"{wanted} locks do not hold on this file system ({kind}): {error}"
        )
    why = f"{kind}: {PROCESSES} processes x {WRITES} locked writes in {seconds:.1f} s, none lost"
    if wanted == "journal":
        why += f"; SQLite is not safe on a network file system, and {kind} is not known as a local one"
    return Probe(choice=wanted, kind=kind, why=why)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _race(kind: str, folder: Path) -> float:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".hpotune-probe-") as scratch:
        path = Path(scratch, "counter")
        _start_counter(kind, path)
        begun = time.monotonic()
        command = [sys.executable, "-S", "-c", _RACER, kind, str(path), str(WRITES)]
        racers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
        complaints = [racer.communicate(timeout=120)[1] for racer in racers]
        if any(racer.returncode for racer in racers):
            raise ValueError(next(text for text in complaints if text).strip().splitlines()[-1])
        total = _counted(kind, path)
    if total != PROCESSES * WRITES:
        raise ValueError(f"{PROCESSES * WRITES - total} of {PROCESSES * WRITES} locked writes were lost")
    return time.monotonic() - begun


def _start_counter(kind: str, path: Path) -> None:
    if kind == "journal":
        path.write_text("0", encoding="utf-8")
        return
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE n (v INTEGER); INSERT INTO n VALUES (0);")
    db.close()


def _counted(kind: str, path: Path) -> int:
    if kind == "journal":
        return int(path.read_text(encoding="utf-8"))
    db = sqlite3.connect(path)
    total = int(db.execute("SELECT v FROM n").fetchone()[0])
    db.close()
    return total
