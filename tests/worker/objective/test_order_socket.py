"""The socket between a worker and rank 0: private, connected once, and gone afterwards."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path

import pytest

from hpotune.worker.objective.order_socket import OrderSocket


def rank(file: Path, *answers: str) -> threading.Thread:
    """Connects, reads a line, and gives the answers."""

    def run() -> None:
        with socket.socket(socket.AF_UNIX) as mine:
            mine.connect(str(file))
            mine.makefile().readline()
            mine.sendall("".join(f"{answer}\n" for answer in answers).encode())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_lines_go_both_ways() -> None:
    orders = OrderSocket()
    assert orders.file.parent.stat().st_mode & 0o777 == 0o700
    thread = rank(orders.file, "started", "kept")
    assert orders.connect(lambda: False)
    assert not orders.file.parent.exists()
    orders.send("go")
    assert [orders.answer(lambda: False) for _ in range(3)] == ["started", "kept", ""]
    thread.join()
    orders.close()


def test_ranks_that_end_are_noticed() -> None:
    orders = OrderSocket()
    assert not orders.connect(lambda: True)
    assert not orders.is_connected
    orders.close()
    assert not orders.file.parent.exists()


def test_long_temporary_folder_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    orders = OrderSocket()
    assert orders.file.parent.parent == Path("/tmp")
    orders.close()
