"""The socket on which a worker gives orders to the ranks of a trial that it keeps, and gets their answers.

It is a file in a folder that only this user may read. Rank 0 connects, so it must run on the worker's node; the file is
removed then. What is said on it is in hpotune/finetune/warm/server.py.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ORDERS = "HPOTUNE_ORDERS"
"""The environment variable with the file of the socket."""
POLL_S = 1.0
"""How often it is checked whether the ranks have ended: their children may hold the connection open."""


LONGEST = 100
"""Bytes of the file's path: the system allows 107."""


def _private_folder() -> Path:
    """A new folder of mode 0700, in $TMPDIR unless the path of a file in it would be too long for a socket."""
    short = len(os.fsencode(tempfile.gettempdir())) + len("/hpotune-12345678/orders") <= LONGEST
    return Path(tempfile.mkdtemp(prefix="hpotune-", dir=None if short else "/tmp"))


class OrderSocket:
    """The worker's end. Its methods take `has_ended`, which says whether the ranks have ended."""

    def __init__(self) -> None:
        self._folder = _private_folder()
        self._listener: socket.socket | None = socket.socket(socket.AF_UNIX)
        self._connection: socket.socket | None = None
        self._received = b""
        try:
            self._listener.bind(str(self.file))
            self._listener.listen(1)
        except OSError:
            self._close_listener()
            raise

    @property
    def file(self) -> Path:
        """The file of the socket."""
        return self._folder / "orders"

    @property
    def is_connected(self) -> bool:
        """Whether rank 0 has ever connected."""
        return self._connection is not None

    def connect(self, has_ended: Callable[[], bool]) -> bool:
        """Wait until rank 0 connects; false if the ranks end without it."""
        while self._connection is None:
            if self._listener is None:
                return False
            ended = has_ended()
            if select.select([self._listener], [], [], 0 if ended else POLL_S)[0]:
                self._connection, _ = self._listener.accept()
                self._close_listener()
            elif ended:
                return False
        return True

    def send(self, line: str) -> None:
        """Send a line; a closed connection is found by the missing answer."""
        assert self._connection is not None, "`connect` comes first"
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(f"{line}\n".encode())

    def answer(self, has_ended: Callable[[], bool]) -> str:
        """The next line; empty if the ranks ended."""
        assert self._connection is not None, "`connect` comes first"
        while b"\n" not in self._received:
            ended = has_ended()
            if not select.select([self._connection], [], [], 0 if ended else POLL_S)[0]:
                if ended:
                    return ""
                continue
            part = b""
            with suppress(ConnectionResetError):
                part = self._connection.recv(4096)
            if not part:
                return ""
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """Close it: idle ranks end."""
        self._close_listener()
        if self._connection is not None:
            self._connection.close()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        shutil.rmtree(self._folder, ignore_errors=True)
