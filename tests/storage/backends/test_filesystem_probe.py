"""What the file system under a folder is, and what is reported of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.storage.backends import filesystem_probe
from hpotune.storage.backends.filesystem_probe import Mount, advice, flock_holds, local_locks, mount


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """A list of mounts: a shared file system under a folder with a space in its name."""
    (tmp_path / "a b" / "deep").mkdir(parents=True)
    text = (
        f"/dev/sda / ext4 rw 0 0\nfs:/x {tmp_path}/a\\040b nfs4 rw,local_lock=all,vers=4.2 0 0\n"
        f"x {tmp_path}/a tmpfs rw 0 0\n"
    )
    (tmp_path / "mounts").write_text(text)
    monkeypatch.setattr(filesystem_probe, "MOUNTS", tmp_path / "mounts")
    return tmp_path


def test_deepest_mount_holds_the_path(mounts):
    found = mount(mounts / "a b" / "deep" / "not yet made")
    assert found == Mount(point=f"{mounts}/a b", kind="nfs4", options=("rw", "local_lock=all", "vers=4.2"))
    assert mount(mounts).kind == "ext4"


def test_type_is_unknown_without_mounts(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem_probe, "MOUNTS", tmp_path / "none")
    assert mount(tmp_path).kind == "unknown"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("rw", "local_lock=all"), "local_lock=all"),
        (("rw", "local_lock=none"), ""),
        (("localflock",), "localflock"),
        (("nolock",), "nolock"),
        ((), ""),
    ],
)
def test_node_local_locks_are_detected(options, found):
    assert local_locks(Mount(point="/", kind="nfs", options=options)) == found


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
