"""Whether a code snapshot is what was submitted: its copies by their hashes, and no other file that Python imports.

Data beside the copies is not compared: a program may write results where it lies. Byte code in `__pycache__` is
deleted, because Python would run it instead of the source, and its author is unknown.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.machinery import all_suffixes
from pathlib import Path

HASH_LENGTH = 12
_IMPORTED = (*all_suffixes(), ".pth")


def content_hash(content: bytes) -> str:
    """The hash of a file by which snapshot.json knows it."""
    return hashlib.sha256(content).hexdigest()[:HASH_LENGTH]


def snapshot_hash(roots: Mapping[str, str], files: Mapping[str, str]) -> str:
    """The name of a snapshot: a hash of what snapshot.json says."""
    return content_hash(json.dumps({"roots": dict(roots), "files": dict(files)}).encode())


def copies(roots: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """Original file -> its copy, relative to the snapshot's folder."""
    return {path: str(copy_path(Path(path), roots)) for path in files}


def copy_path(path: Path, roots: Mapping[str, str]) -> Path:
    """Where the copy of a file or folder lies, relative to the snapshot's folder."""
    root = max((root for root in roots if path.is_relative_to(root)), key=len)
    return Path(roots[root]) / path.relative_to(root)


def changes(
    folder: Path, roots: Mapping[str, str], files: Mapping[str, str], *, trusted: Callable[[Path], bool]
) -> list[str]:
    """What differs in a snapshot's folder from what was submitted, one phrase each; deletes its byte code.

    `trusted`: whether the owner of a module outside the snapshot, to which a link leads, is trusted.
    """
    names = copies(roots, files)
    changed = [text for path, name in names.items() if (text := _change(folder, name, files[path]))]
    originals = {mirror: root for root, mirror in roots.items()}
    added = sorted(set(_additions(folder, originals, str(folder), trusted=trusted)) - set(names.values()))
    return changed + [f"{name} was added" for name in added]


def is_importable(path: Path) -> bool:
    """Whether Python imports something by the name of this file or folder."""
    if os.path.isdir(path):  # os.path: another user's closed folder is an error for Path before Python 3.12
        return any(os.path.exists(path / f"__init__{suffix}") for suffix in all_suffixes())
    return path.name.endswith(_IMPORTED)


def _change(folder: Path, name: str, expected: str) -> str:
    """How a copy differs; empty if it does not."""
    try:
        file = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as copy:
            regular = stat.S_ISREG(os.fstat(copy.fileno()).st_mode)
            same = regular and content_hash(copy.read()) == expected
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return "" if same else f"{name} was changed"


def _additions(
    folder: Path, originals: Mapping[str, str], at: str, *, trusted: Callable[[Path], bool]
) -> Iterator[str]:
    """Names of the files that Python imports, and of links that do not lead to the originals; deletes byte code."""
    for entry in list(os.scandir(at)):
        name = os.path.relpath(entry.path, folder)
        if entry.is_symlink():
            try:
                target = Path(os.readlink(entry.path))
            except PermissionError:  # sshfs may refuse absolute links: then no import can follow it either
                continue
            if not _is_own_link(Path(name), target, originals, trusted=trusted):
                yield name
        elif entry.is_dir(follow_symlinks=False):
            yield from _additions(folder, originals, entry.path, trusted=trusted)
        elif os.path.basename(at) == "__pycache__" and entry.name.endswith(".pyc"):
            with suppress(FileNotFoundError):
                os.unlink(entry.path)
        elif entry.name.endswith(_IMPORTED):
            yield name


def _is_own_link(
    name: Path, target: Path, originals: Mapping[str, str], *, trusted: Callable[[Path], bool]
) -> bool:
    """Whether a link leads to the file beside the original program for which it stands, as hpotune makes links."""
    root = originals.get(name.parts[0])
    own = root is not None and target == Path(root, *name.parts[1:])
    return own and (trusted(target) or not is_importable(target))
