"""Whose files are trusted: those of this user and of root that nobody else may write.

A group's members are trusted where the study file says so. Users are compared by number; names are for messages.
Source: what OpenSSH asks of ~/.ssh (misc.c, safe_path), with Debian's exception for a user's own group.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from hpotune.errors import StudyFileError

ROOT = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Owners:
    """Whose files are trusted."""

    users: frozenset[int]
    group: int | None = None
    """Its members are trusted too, and may write the files; None: no group."""
    modes: bool = True
    """Whether a file that others may write is refused too; False: only owners count."""

    def complaint(self, path: Path) -> str:
        """Why a file or folder is not trusted, as a predicate; empty if it is, or if there is none.

        A symbolic link is judged by its own owner and by what it leads to.
        """
        try:
            found = os.lstat(path)
            text = self._complaint(found)
            if not text and stat.S_ISLNK(found.st_mode):
                text = self._complaint(os.stat(path))
                return f"is a link to {os.path.realpath(path)}, which {text}" if text else ""
        except OSError:  # missing, a link to nothing, or a loop: whoever opens it reports that
            return ""
        return text

    def _complaint(self, found: os.stat_result) -> str:
        member = self.group is not None and is_member(found.st_uid, self.group)
        if found.st_uid not in self.users and not member:
            return f"belongs to {user_name(found.st_uid)}"
        mode = f"(mode {stat.S_IMODE(found.st_mode):04o})"
        if stat.S_ISLNK(found.st_mode) or not self.modes:
            return ""
        if found.st_mode & stat.S_IWOTH:
            return f"may be changed by everyone {mode}"
        if found.st_mode & stat.S_IWGRP and not self._is_harmless(found.st_gid, owner=found.st_uid):
            return f"may be changed by the group {group_name(found.st_gid)} {mode}"
        return ""

    def _is_harmless(self, group: int, *, owner: int) -> bool:
        """Whether the members of a group are trusted: root's, the shared one, or one that only its owner is in."""
        return group in (ROOT, self.group) or _is_own_group(group, owner)


def this_user() -> Owners:
    """This user and root."""
    return Owners(users=frozenset({os.geteuid(), ROOT}))


def first_complaint(paths: Iterable[Path], owners: Owners) -> tuple[Path, str] | None:
    """The first path that is not trusted, and why."""
    return next(((path, text) for path in paths if (text := owners.complaint(path))), None)


def is_member(user: int, group: int) -> bool:
    """Whether a user is in a group; this process with the groups that it has."""
    if user == os.geteuid():
        return group == os.getegid() or group in os.getgroups()
    return group in _groups_of(user)


@cache
def _groups_of(user: int) -> frozenset[int]:
    try:
        account = pwd.getpwuid(user)
        return frozenset(os.getgrouplist(account.pw_name, account.pw_gid))
    except (KeyError, OSError):
        return frozenset()


@cache
def _is_own_group(group: int, owner: int) -> bool:
    """Whether it is the owner's private group, as adduser makes it: of his name, and without other members."""
    try:
        account, found = pwd.getpwuid(owner), grp.getgrgid(group)
    except KeyError:
        return False
    alone = set(found.gr_mem) <= {account.pw_name}
    return account.pw_gid == group and found.gr_name == account.pw_name and alone


def file_owner(path: Path) -> int:
    """The number of the user who owns a file; this user's where there is none."""
    try:
        return path.stat().st_uid
    except OSError:
        return os.geteuid()


def user_name(user: int) -> str:
    """`alice (uid 1001)`, or `uid 1001` where the number has no name."""
    try:
        return f"{pwd.getpwuid(user).pw_name} (uid {user})"
    except KeyError:
        return f"uid {user}"


def group_name(group: int) -> str:
    """`lab (gid 100)`, or `gid 100` where the number has no name."""
    try:
        return f"{grp.getgrgid(group).gr_name} (gid {group})"
    except KeyError:
        return f"gid {group}"


def new_file(folder: Path) -> tuple[frozenset[int], bool]:
    """The owner of a file that this process makes there, if it can, and whether the file system keeps modes.

    On NFS with root_squash, sshfs and CIFS the owner is not this user's own number; on CIFS every mode may be 0777.
    Nobody else can make such a file: on Linux no folder chooses the owner or widens the mode of new files.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hpotune-owner-") as file:  # of mode 0600
            found = os.fstat(file.fileno())
            return frozenset({found.st_uid}), not found.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
    except OSError:
        return frozenset(), True


def check_cache(*paths: Path) -> None:
    """Check that $HPOTUNE_CACHE and files in it are this user's: what is read there decides what trials train on.

    A missing cache is made, and closed to others; in a closed one the modes of files do not matter.
    Raises: StudyFileError naming the first one that another user owns or may change.
    """
    root, *inner = paths
    with suppress(OSError):  # whoever writes there reports that
        if not root.exists():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_sticky(root):  # as /tmp: only the owner of a file can replace it there
        paths = tuple(inner)
    owners = replace(this_user(), modes=not _is_closed(root))
    if first_complaint(paths, owners) is None:
        return
    owner, has_modes = new_file(root)
    owners = replace(owners, users=owners.users | owner, modes=owners.modes and has_modes)
    if found := first_complaint(paths, owners):
        path, text = found
        step = f"`chmod -R go-w {root}`, or " if "may be changed by" in text else ""
        raise StudyFileError(
            f"{path}: {text}, so what hpotune keeps there cannot be trusted; {step}set HPOTUNE_CACHE to a folder of "
            "your own"
        )


def _is_closed(folder: Path) -> bool:
    """Whether it is this user's, and nobody else can reach what is in it."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _is_sticky(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_ISVTX)
    except OSError:
        return False
