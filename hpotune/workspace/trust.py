"""Whether a study's folder may be used: jobs run the code in it, so only its user may have written it.

The check reads the owner and the mode of the folder and of the files whose names hpotune knows; of `trials/` the
folder alone, since nobody else can have written into it afterwards, and each trial's folder when it is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hpotune.config.ownership import Owners, first_complaint, group_name, is_member, new_file, this_user
from hpotune.config.yaml_source import Source, read_source
from hpotune.errors import StudyFileError

SHARED = "HPOTUNE_SHARED_WITH"
"""`group`: use studies that other members of a group have made. Users set it; the jobs of such studies have it."""
MAX_BYTES = 2**20
_OPENED = ("code", "prepared", "jobs")
"""Folders whose entries are checked too."""
_OF_TRIAL = (
    "spec.json", "result.json", "answer.json", "log.txt", "curve.jsonl", "spans.jsonl", "items.npz", "adapter", "model",
    "checkpoint", "provenance.json", "progress.json",
)  # fmt: skip
_STORES = ("store.db", "store.journal")
_FILES = frozenset(
    {"study.yaml", "resolved.yaml", "provenance.json", "extension.json", "rehearsal.json", "plan.json", "probe.json"}
    | {"trials", "reruns", "environments", "hashes", "git.diff", "trackers", *_OPENED}
)  # fmt: skip


def check_folder(folder: Path, *, source: Source | None = None) -> bool:
    """Check that nobody else may have written what is in a study's folder, which may be missing.

    `source`: the study file that the user named, if it was one. Returns whether the study is shared with a group.
    Raises: StudyFileError naming the file, its owner, and the next step.
    """
    shared = is_shared(folder, source)
    if found := _complaint(folder, _files(folder), shared=shared):
        raise StudyFileError(_message(folder, *found, shared=shared))
    return shared


def check_files(folder: Path, *paths: Path, shared: bool | None) -> None:
    """Check files of a study that lie deeper in its folder, or a store elsewhere; missing ones are accepted.

    `shared`: what `check_folder` found; None: what the folder's own resolved.yaml says.
    Raises: StudyFileError as `check_folder`.
    """
    if found := _complaint(folder, paths, shared=shared):
        raise StudyFileError(_message(folder, *found, shared=_decided(folder, shared)))


def check_trial(folder: Path, trial: Path, *, shared: bool | None) -> None:
    """Check a trial's folder and the files in it before they are read or written. `shared`: as `check_files`.

    Raises: StudyFileError as `check_folder`.
    """
    check_files(folder, trial, shared=shared)
    # of these the owner only: a user's program may have given a file any mode
    if found := _complaint(folder, tuple(trial / name for name in _OF_TRIAL), shared=shared, modes=False):
        raise StudyFileError(_message(folder, *found, shared=_decided(folder, shared)))


def trusted_group(folder: Path, *, shared: bool | None) -> int | None:
    """The number of the group whose members are trusted with a study; None where it is not shared."""
    if not _decided(folder, shared):
        return None
    try:
        number = folder.stat().st_gid
    except OSError:  # not made yet
        return None
    return number if is_member(os.geteuid(), number) else None


def store_files(url: str) -> list[Path]:
    """The file of a store and those that SQLite and the journal open beside it; none of a server."""
    scheme, _, name = url.partition(":///")
    if scheme not in ("sqlite", "journal") or not name:
        return []
    beside = ("-journal", "-wal", "-shm") if scheme == "sqlite" else (".lock",)
    file = Path(name)
    lock = file.with_name(f".hpotune-{file.name}.lock")  # of its creation
    return [file, lock, *(Path(f"{name}{end}") for end in beside)]


def close_to_others(folder: Path) -> None:
    """Take from a new folder what the default ACL of the one above gives to others: it overrides the umask."""
    with suppress(OSError):  # it has none, or the file system knows none
        os.removexattr(folder, "system.posix_acl_default")
    with suppress(OSError):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))


def share_store(folder: Path, url: str, *, shared: bool | None) -> None:
    """Let a shared study's group write the store's own files; SQLite makes them 0644 for every umask."""
    group = trusted_group(folder, shared=shared)
    for file in store_files(url) if group is not None else ():
        with suppress(OSError):
            found = file.lstat()
            if stat.S_ISREG(found.st_mode) and (found.st_uid, found.st_gid) == (os.geteuid(), group):
                file.chmod(stat.S_IMODE(found.st_mode) | 0o060)


def _complaint(
    folder: Path, paths: Iterable[Path], *, shared: bool | None, modes: bool = True
) -> tuple[Path, str] | None:
    """The first file that is not trusted, and why. `shared` None: to be looked up only where something is found.

    `modes` False: only owners count.
    """
    paths = tuple(paths)
    if first_complaint(paths, replace(this_user(), modes=modes)) is None:
        return None
    owner, has_modes = new_file(folder)
    users = this_user().users | owner
    group = trusted_group(folder, shared=shared)
    return first_complaint(paths, Owners(users=users, group=group, modes=modes and has_modes))


def _files(folder: Path) -> Iterator[Path]:
    """The folder, and the files in it that hpotune reads, runs, locks or opens as a store."""
    yield folder
    for path in _entries(folder):
        if path.name in _FILES or path.name.startswith((".hpotune-", *_STORES)):
            yield path
            if path.name in _OPENED:
                for inner in _entries(path):
                    yield inner
                    if path.name == "jobs" and inner.name.isdigit():
                        yield inner / "job.json"


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except OSError:  # missing, or not a folder: whoever uses it reports that
        return []


def _decided(folder: Path, shared: bool | None) -> bool:
    return is_shared(folder) if shared is None else shared


def is_shared(folder: Path, source: Source | None = None) -> bool:
    """Whether a study file says `shared_with: group`, and this user has written it or has opted in by $SHARED.

    A folder's own word is not enough: who plants a folder writes that too. The folder's owner has opted in when the
    study was made, and other members may have written its files anew.
    """
    opted_in = os.environ.get(SHARED) == "group"
    if source and source.values.get("shared_with") == "group" and (opted_in or _is_mine(source.path)):
        return True
    resolved = folder / "resolved.yaml"
    return (opted_in or _is_mine(resolved) or _is_mine(folder)) and _says_shared(resolved)


def _says_shared(file: Path) -> bool:
    """Whether a study file says `shared_with: group`; False where it cannot be read."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as content:
            if b"shared_with" not in content.read(MAX_BYTES):  # parsing costs more than all else here
                return False
        return read_source(file).values.get("shared_with") == "group"
    except (OSError, StudyFileError):
        return False


def _is_mine(path: Path) -> bool:
    try:
        return os.lstat(path).st_uid in this_user().users
    except OSError:
        return False


def restrict_umask(*, shared: bool) -> None:
    """Make this process's new files private to this user's writing, or to the group's.

    What else the umask forbids stays forbidden.
    """
    mask = os.umask(0o077)
    os.umask((mask & ~0o070 if shared else mask | 0o020) | 0o002)


def _message(folder: Path, path: Path, text: str, *, shared: bool) -> str:
    """One line: the path, why it is not trusted, and the next step."""
    start = f"{path}: {text}, and a study's files decide what runs in your name; "
    if "may be changed by" in text:
        return start + (
            f"remove what you do not know, then `chmod -R {'o-w' if shared else 'go-w'} {folder}`"
            + ("" if shared else ", or write `shared_with: group` into the study file")
        )
    if shared:
        return (
            start
            + f"its owner is not in the group {group_name(_group(folder))} of the folder: remove it, or use --folder"
        )
    return start + (
        "use --folder or another name, or remove it; of a group's study that says `shared_with: group`, "
        f"set {SHARED}=group"
    )


def _group(folder: Path) -> int:
    try:
        return folder.stat().st_gid
    except OSError:  # not made yet: a file elsewhere is not trusted
        return os.getegid()
