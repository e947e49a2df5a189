"""The files that a rank process has read to build what it keeps, and whether one of them has changed since.

Python reports every file that it opens to an audit hook; so the task files of lm-eval, what they include and the data
files that `datasets` reads are covered. Compiled Python files stand for their sources.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hpotune

HPOTUNE = Path(hpotune.__file__).parent
UNWATCHED = ("/proc/", "/sys/", "/dev/")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
Stamp = tuple[int, int, int, int, int] | None
"""Device, inode, size, times of the last change of content and of the inode; None: there is no such file."""


class WatchedFiles:
    """Stamps of files and folders."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp] = {}
        self._opened: set[str] = set()
        self._recording = False
        self._unwatched: tuple[str, ...] = UNWATCHED
        sys.addaudithook(self._hook)  # a hook cannot be removed: one for the life of the process

    @contextmanager
    def recording(self, *, except_in: tuple[str, ...] = ()) -> Iterator[None]:
        """Watch every file that the body opens to read, except in these folders."""
        self._unwatched, self._recording = (*UNWATCHED, *(f"{one.rstrip('/')}/" for one in except_in)), True
        try:
            yield
        finally:
            self._recording = False
            self._stamps = {path: stamp for path, stamp in self._stamps.items() if os.path.exists(path)}

    def add(self, path: Path) -> None:
        """Watch a file, or all files below a folder."""
        for one in path.rglob("*") if path.is_dir() else [path]:
            if one.is_file() and one.suffix != ".pyc":
                self._stamps.setdefault(str(one.absolute()), _stamp(str(one)))

    def changed(self) -> str | None:
        """The first file that has changed or is gone; None: all are as they were read."""
        return next((path for path, stamp in self._stamps.items() if _stamp(path) != stamp), None)

    def own_code(self) -> str | None:
        """A file of Python code that was read and that belongs to no installed package: it may keep a state of its own.

        None: there is none.
        """
        installed = tuple(
            f"{one}/" for one in {sys.prefix, sys.base_prefix, *sys.path} if one and "-packages" in one
        )
        folders = (*installed, f"{sys.prefix}/", f"{sys.base_prefix}/lib/", f"{HPOTUNE}/")
        return next(
            (one for one in self._opened if one.endswith(".py") and not one.startswith(folders)), None
        )

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not self._recording:
            return
        name, mode, flags = arguments
        writes = isinstance(flags, int) and flags & WRITES
        if not isinstance(name, (str, bytes, os.PathLike)) or writes or set(str(mode)) & set("wax+"):
            return
        path = os.path.abspath(os.fsdecode(name))
        if path.endswith(".pyc"):
            with suppress(ValueError):
                path = importlib.util.source_from_cache(path)
        if not path.startswith(self._unwatched):
            self._opened.add(path)
            self._stamps.setdefault(path, _stamp(path))


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
