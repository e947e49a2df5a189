"""The output of several ranks and of their launcher, written into the log of the trial that they run."""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from io import FileIO
from pathlib import Path

from hpotune.workspace.atomic_files import open_append


class RankLog:
    """A pipe, and a thread that copies what comes from it into the log.txt of one folder, then of the next one.

    One process writes the log, so lines of ranks on several nodes do not overwrite each other on a network file system.
    """

    def __init__(self, folder: Path) -> None:
        self._read, self._write = os.pipe()
        self._file = _open(folder)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def start(self) -> None:
        """Start to copy, once the ranks have got `pipe`: it ends when they have closed it."""
        os.close(self._write)
        self._thread.start()

    @property
    def pipe(self) -> int:
        """The end for the ranks' output."""
        return self._write

    def move_to(self, folder: Path) -> None:
        """Copy into this folder's log from now on; what has come already is of the trial before."""
        while self._thread.is_alive() and select.select([self._read], [], [], 0)[0]:
            self._thread.join(0.01)
        file = _open(folder)
        with self._lock:
            self._file.close()
            self._file = file

    def close(self) -> None:
        """Wait for the last output of ranks that have ended."""
        if self._thread.ident is None:  # they could not be started
            os.close(self._write)
        else:
            self._thread.join(5)
        if not self._thread.is_alive():
            os.close(self._read)
        with self._lock:
            self._file.close()

    def _copy(self) -> None:
        part = b"-"
        while part:
            select.select([self._read], [], [])
            with (
                self._lock
            ):  # also while it reads: `move_to` finds all that has come in the pipe or in the log
                part = os.read(self._read, 65536)
                with suppress(OSError, ValueError):  # the disk is full, or the log is closed
                    self._file.write(part)


def _open(folder: Path) -> FileIO:
    """The log without a buffer, which a full disk would keep from being closed."""
    with open_append(folder / "log.txt") as file:
        return FileIO(os.dup(file.fileno()), "ab")
