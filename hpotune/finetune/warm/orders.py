"""The orders that a worker gives to the ranks that it keeps: rank 0 gets them by a socket, the others by its store."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpotune.finetune.distributed.ranks import Ranks

POLL_S = 0.02
"""How often the other ranks look for an order: signals are handled in between, and no GPU waits in a collective."""


class Orders:
    """What the worker says, one line after the other, on every rank.

    Raises: OSError on rank 0 if the worker is not reached, because it runs on another node.
    """

    def __init__(self, env: Mapping[str, str], *, is_main: bool) -> None:
        self._socket = socket.socket(socket.AF_UNIX) if is_main else None
        self._ranks: Ranks | None = None
        self._read = 0
        if self._socket is not None:
            self._socket.connect(env["HPOTUNE_ORDERS"])
            self._lines = self._socket.makefile("rb")

    def share_with(self, ranks: Ranks) -> None:
        """Give every order to the other ranks from now on."""
        self._ranks = ranks

    def next(self) -> dict[str, Any] | None:
        """The next order; None: the worker has gone, or rank 0."""
        self._read += 1
        key = f"order/{self._read}"
        if self._socket is None:
            line = self._from_main(key)
        else:
            line = self._lines.readline()
            if self._ranks is not None and self._ranks.store is not None:
                self._ranks.store.set(key, line.decode())
        order: dict[str, Any] | None = json.loads(line or b"null")
        return order

    def answer(self, word: str) -> None:
        """Say a word to the worker, on rank 0."""
        if self._socket is not None:
            self._socket.sendall(f"{word}\n".encode())

    def _from_main(self, key: str) -> bytes:
        import torch.distributed as dist

        assert self._ranks is not None, "ranks other than the first share its orders"
        assert self._ranks.store is not None, "several ranks have met in a store"
        try:
            while not self._ranks.store.check([key]):
                time.sleep(POLL_S)
            found: bytes = self._ranks.store.get(key)
        except dist.DistError:
            return b""
        return found
