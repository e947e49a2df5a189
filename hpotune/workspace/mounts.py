"""The mounted file systems of this machine, by the kernel's table; never which storage they support."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/mounts")
_LOCAL_FLOCK = frozenset({"9p", "virtiofs"})
"""Types, besides those in user space, on which flock is the kernel's own: other nodes do not see it."""

NETWORK = frozenset({
    "nfs", "nfs3", "nfs4", "lustre", "cifs", "smb", "smb3", "smbfs", "sshfs", "beegfs", "beegfs_nodev", "gpfs", "mmfs",
    "ceph", "cephfs", "ceph-fuse", "glusterfs", "pvfs2", "orangefs", "afs", "openafs", "wekafs", "panfs", "dvs",
    "ocfs2", "gfs2", "moosefs", "mfs", "lizardfs", "xtreemfs", "quobyte", "s3fs", "rclone", "gcsfuse", "juicefs",
    "davfs", "davfs2", "cvmfs2", "curlftpfs",
})  # fmt: skip
"""Types that several hosts mount, also as `fuse.TYPE`; how their locks work depends on server, version and options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A mounted file system."""

    point: str
    kind: str
    """`ext4`, `nfs4`, `lustre`; `unknown` where /proc does not list it."""
    options: tuple[str, ...] = ()


def mount(folder: Path) -> Mount:
    """The file system of a path."""
    path = str(existing_folder(folder).resolve())
    best = Mount(point="", kind="unknown")
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return best
    for line in mounts:
        point, kind, options = (part.replace("\\040", " ") for part in line.split()[1:4])
        if len(point) >= len(best.point) and (path + "/").startswith(point.rstrip("/") + "/"):
            best = Mount(point=point, kind=kind, options=tuple(options.split(",")))
    return best


def mount_type(folder: Path) -> str:
    """The type of the file system of a path."""
    return mount(folder).kind


def local_locks(mounted: Mount) -> str:
    """The mount option by which other nodes do not see locks; empty without one."""
    for option in mounted.options:
        if option in (
            "nolock",
            "localflock",
            "local_lock=all",
            "local_lock=flock",
            "local_lock=posix",
            "nobrl",
        ):
            return option
    return ""


def flock_stays_here(folder: Path) -> bool:
    """Whether other nodes may not see a flock in this folder, by the type of the file system and its options."""
    mounted = mount(folder)
    return mounted.kind.startswith("fuse") or mounted.kind in _LOCAL_FLOCK or bool(local_locks(mounted))


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
