"""The orders that a worker gives to the ranks that it keeps: rank 0 gets them by a socket, the others by its store.

The store is not encrypted and knows no passwords (SECURITY.md), so an order in it holds no environment but the
variables that differ from those of the first order, which every rank was started with: those of the trial.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpotune.workspace.atomic_files import open_append

if TYPE_CHECKING:
    import torch.distributed as dist

    from hpotune.finetune.distributed.ranks import Ranks

POLL_S = 0.02
"""How often the other ranks look for an order: signals are handled in between, and no GPU waits in a collective."""
LAST_S = 2.0
"""How long rank 0, which holds the store, waits for the others to see that there are no more orders."""
Order = dict[str, Any]


class LostRank(Exception):
    """Rank 0 has gone without a word."""


class Orders:
    """What the worker says, one line after the other, on every rank.

    Raises: OSError on rank 0 if the worker is not reached, because it runs on another node.
    """

    def __init__(self, env: Mapping[str, str], *, is_main: bool) -> None:
        self._socket = socket.socket(socket.AF_UNIX) if is_main else None
        self._store: dist.Store | None = None
        self._others = 0
        self._read = 0
        self._first: Mapping[str, str] = {}
        if self._socket is not None:
            self._socket.connect(env["HPOTUNE_ORDERS"])
            self._lines = self._socket.makefile("rb")

    def share_with(self, ranks: Ranks, env: Mapping[str, str]) -> None:
        """Give every order to the other ranks from now on. `env`: what this rank was started with."""
        self._store, self._others = ranks.store, ranks.world_size - 1
        if self._socket is None:
            self._first = dict(env)

    def next(self) -> Order | None:
        """The next order, with the whole environment; None: there are no more.

        Raises: LostRank.
        """
        self._read += 1
        order = self._from_worker() if self._socket is not None else self._from_main()
        if self._socket is not None and self._store is not None:
            self._share(order, self._store)
        return order

    def answer(self, word: str) -> None:
        """Say a word to the worker, on rank 0."""
        if self._socket is not None:
            self._socket.sendall(f"{word}\n".encode())

    def _from_worker(self) -> Order | None:
        order: Order | None = json.loads(self._lines.readline() or b"null")
        if order is not None and self._read == 1:
            self._first = order["env"]
        return order

    def _share(self, order: Order | None, store: dist.Store) -> None:
        if order is not None:
            env = order["env"]
            changed = {name: value for name, value in env.items() if self._first.get(name) != value}
            removed = [name for name in self._first if name not in env]
            order = {"spec": order["spec"], "changed": changed, "removed": removed}
        store.set(f"order/{self._read}", json.dumps(order))
        if order is None:
            until = time.monotonic() + LAST_S
            while store.add("ended", 0) < self._others and time.monotonic() < until:
                time.sleep(POLL_S)

    def _from_main(self) -> Order | None:
        from torch.distributed import DistError

        store, key = self._store, f"order/{self._read}"
        assert store is not None, "several ranks have met in one"
        try:
            while not store.check([key]):
                time.sleep(POLL_S)
            shared = json.loads(store.get(key))
            if shared is None:
                store.add("ended", 1)
                return None
        except DistError as error:
            raise LostRank(f"rank 0 has gone: {error}") from error
        env = {name: value for name, value in self._first.items() if name not in shared["removed"]}
        return {"spec": shared["spec"], "env": env | shared["changed"]}


def log_to(folder: Path) -> None:
    """Send the output of this process, also of its libraries, to the trial's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open_append(folder / "log.txt") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
