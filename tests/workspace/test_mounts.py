"""What the file system under a folder is, by the kernel's table of mounts."""

from __future__ import annotations

import pytest

from hpotune.workspace import mounts as mounts_module
from hpotune.workspace.mounts import Mount, flock_stays_here, local_locks, mount


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """A list of mounts: a shared file system under a folder with a space in its name."""
    (tmp_path / "a b" / "deep").mkdir(parents=True)
    text = (
        f"/dev/sda / ext4 rw 0 0\nfs:/x {tmp_path}/a\\040b nfs4 rw,local_lock=all,vers=4.2 0 0\n"
        f"x {tmp_path}/a tmpfs rw 0 0\n"
    )
    (tmp_path / "mounts").write_text(text)
    monkeypatch.setattr(mounts_module, "MOUNTS", tmp_path / "mounts")
    return tmp_path


def test_deepest_mount_holds_the_path(mounts):
    found = mount(mounts / "a b" / "deep" / "not yet made")
    assert found == Mount(point=f"{mounts}/a b", kind="nfs4", options=("rw", "local_lock=all", "vers=4.2"))
    assert mount(mounts).kind == "ext4"


def test_type_is_unknown_without_mounts(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts_module, "MOUNTS", tmp_path / "none")
    assert mount(tmp_path).kind == "unknown"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("rw", "local_lock=all"), "local_lock=all"),
        (("rw", "local_lock=none"), ""),
        (("localflock",), "localflock"),
        (("nolock",), "nolock"),
        (("nobrl",), "nobrl"),
        ((), ""),
    ],
)
def test_node_local_locks_are_detected(options, found):
    assert local_locks(Mount(point="/", kind="nfs", options=options)) == found


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        ("fs {} nfs4 rw,local_lock=none", False),
        ("fs {} nfs rw,local_lock=flock", True),
        ("fs {} lustre rw,flock", False),
        ("fs {} lustre rw,localflock", True),
        ("me@host:/x {} fuse.sshfs rw", True),
        ("tag {} virtiofs rw", True),
        ("/dev/sda {} ext4 rw", False),
    ],
)
def test_flock_may_stay_on_one_node(line, stays, tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(f"/dev/sda / ext4 rw 0 0\n{line.format(tmp_path)} 0 0\n")
    monkeypatch.setattr(mounts_module, "MOUNTS", tmp_path / "mounts")
    assert flock_stays_here(tmp_path / "new") is stays
