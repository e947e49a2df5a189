"""Which processes use a code snapshot, and how one is removed; launch/old_snapshots.py decides which.

code/.users/NAME.json   written by each worker and each `hpotune run` before it reads its snapshot, removed at its end
code/.removed-HASH-X    a snapshot that is being removed
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.json_file import optional_object, read_regular
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.holder_file import machine_id

_NAME = re.compile(r"[0-9a-f]{12,64}", re.ASCII)
_ASIDE = re.compile(rf"\.removed-({_NAME.pattern})-[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotUser:
    """A process that uses a snapshot, or was killed while it did."""

    file: Path
    code: str
    job: str
    """Slurm's JOB or ARRAY_ELEMENT; `local` outside Slurm."""
    machine: str
    pid: int

    @property
    def runs(self) -> bool | None:
        """Whether the process runs; None where it is a process of another machine."""
        return Path("/proc", str(self.pid)).exists() if self.machine == machine_id() else None


@contextmanager
def using_snapshot(folder: StudyFolder, code: str | None, *, job: str) -> Iterator[None]:
    """Keep the snapshot from being removed while the body runs; nothing where there is none, or the disk is full."""
    if code is None or not (folder.path / "code" / code).is_dir():
        yield
        return
    file = folder.path / "code" / ".users" / f"{os.getpid()}-{secrets.token_hex(8)}.json"
    record = {"code": code, "job": job, "machine": machine_id(), "pid": os.getpid()}
    with suppress(OSError):
        write_atomic(file, json.dumps(record) + "\n")
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()


def snapshot_users(folder: StudyFolder) -> list[SnapshotUser]:
    """Every process that has said that it uses a snapshot."""
    users = []
    for file in folder.path.glob("code/.users/*.json"):
        with suppress(KeyError, TypeError, ValueError):
            found = optional_object(file) or {}
            words = {key: str(found[key]) for key in ("code", "job", "machine")}
            users.append(SnapshotUser(file=file, pid=int(found["pid"]), **words))
    return users


def newest_snapshot(folder: StudyFolder) -> str | None:
    """The name of the latest snapshot; None where there is none."""
    try:
        name = read_regular(folder.path / "code" / "newest").decode("utf-8").strip()
    except (OSError, ValueError):
        return None
    return name if re.fullmatch("[0-9a-f]+", name) else None


def snapshot_names(folder: StudyFolder) -> list[str]:
    """The names of all snapshots: folders called by a hash, with snapshot.json in them."""
    records = sorted(folder.path.glob("code/*/snapshot.json"))
    return [file.parent.name for file in records if _is_snapshot(file.parent)]


def _is_snapshot(path: Path) -> bool:
    record = path / "snapshot.json"
    plain = record.is_file() and not record.is_symlink() and not path.is_symlink()
    return plain and _NAME.fullmatch(path.name) is not None


def remove_snapshot(folder: StudyFolder, name: str, *, needed: Callable[[], bool]) -> bool:
    """Remove a snapshot, unless it is needed after all; whether it is gone.

    It is asked again once the snapshot has been moved away: who announces itself first and then looks for the snapshot
    is seen here, or sees that it is gone.
    """
    aside = folder.path / "code" / f".removed-{name}-{secrets.token_hex(8)}"
    try:
        (folder.path / "code" / name).rename(aside)
    except OSError:
        return False
    if needed():
        _put_back(aside, name)
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def clear_removed(folder: StudyFolder, *, kept: set[str]) -> None:
    """Remove what an earlier removal left, or put it back where it is needed."""
    for aside in folder.path.glob("code/.removed-*"):
        match = _ASIDE.fullmatch(aside.name)
        if match is None or aside.is_symlink():
            continue
        if match[1] in kept:
            _put_back(aside, match[1])
        shutil.rmtree(aside, ignore_errors=True)


def _put_back(aside: Path, name: str) -> None:
    with suppress(OSError):  # another process has made it again meanwhile
        aside.rename(aside.with_name(name))
