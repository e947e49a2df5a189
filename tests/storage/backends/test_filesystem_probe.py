"""What is reported of a file system, and the test of its locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.storage.backends import filesystem_probe
from hpotune.storage.backends.filesystem_probe import advice, flock_holds


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nfs4", "SQLite is not safe"),
        ("lustre", "many small files"),
        ("beegfs", "tuneUseGlobalFileLocks"),
        ("gpfs", "parallel"),
        ("ceph", "parallel"),
        ("fuse.ceph", "parallel"),
        ("tmpfs", "lost at a restart"),
        ("overlay", "container"),
        ("fuse.mystery", "mystery is an unknown type"),
        ("ext4", "compute nodes do not see it"),
    ],
)
def test_file_systems_have_advice(kind, words):
    assert words in advice(kind, slurm=True)


def test_local_disk_needs_no_advice():
    assert advice("xfs", slurm=False) == ""


def test_flock_is_tested_by_processes(tmp_path: Path, monkeypatch):
    assert flock_holds(tmp_path) == ""
    monkeypatch.setattr(filesystem_probe, "WRITES", 200)
    lossy = filesystem_probe._RACER.replace("fcntl.flock(f, fcntl.LOCK_EX)", "time.sleep(0.001)")
    monkeypatch.setattr(filesystem_probe, "_RACER", lossy)
    assert "locked writes were lost" in flock_holds(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_hanging_racers_are_killed(tmp_path: Path, monkeypatch):
    """A lock that hangs would be held, and the probe's folder kept, by processes that nobody knows."""
    pids = tmp_path / "pids"
    hang = f"import os, time\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(600)"
    monkeypatch.setattr(filesystem_probe, "_RACER", hang)
    monkeypatch.setattr(filesystem_probe, "RACE_S", 3.0)
    assert "timed out" in flock_holds(tmp_path)
    assert pids.read_text().split()
    assert not [pid for pid in pids.read_text().split() if Path("/proc", pid).exists()]
    assert list(tmp_path.iterdir()) == [pids]
