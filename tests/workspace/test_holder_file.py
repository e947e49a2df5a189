"""Locks where flock stays on one node: one holder at a time, and what a holder that is gone left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpotune.workspace import holder_file, lock
from hpotune.workspace.holder_file import HolderFile
from hpotune.workspace.lock import exclusive_lock

ADD = """
import sys
from pathlib import Path
from hpotune.workspace import lock
lock.flock_stays_here = lambda folder: True
lock.fcntl.flock = lambda *_: None  # of another node: the kernel's lock does not reach it
for _ in range(25):
    with lock.exclusive_lock(Path(sys.argv[1])):
        counter = Path(sys.argv[2])
        counter.write_text(str(int(counter.read_text()) + 1))
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "lock"


def test_no_count_is_lost(path, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", ADD, str(path), str(counter)]
    adders = [subprocess.Popen(command) for _ in range(3)]
    assert [adder.wait() for adder in adders] == [0, 0, 0]
    assert counter.read_text() == "75"
    assert sorted(os.listdir(tmp_path)) == ["counter", "lock"]


def test_flock_alone_where_it_reaches_all(path, monkeypatch):
    with exclusive_lock(path):
        assert os.listdir(path.parent) == ["lock"]
    monkeypatch.setattr(lock, "flock_stays_here", lambda folder: True)
    with exclusive_lock(path):
        assert sorted(os.listdir(path.parent)) == ["lock", "lock.holder"]


def test_second_process_does_not_get_it(path):
    first, second = HolderFile(path), HolderFile(path)
    assert first.take()
    assert not second.take()
    second.release()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()
    assert os.listdir(path.parent) == []


def test_killed_process_holds_nothing(path):
    code = (
        "import sys; from pathlib import Path; from hpotune.workspace.holder_file import HolderFile; "
        "HolderFile(Path(sys.argv[1])).take(); import os; os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.with_name("lock.holder").exists()
    assert HolderFile(path).take()


@pytest.mark.parametrize("text", ["another-boot/1 17 x", ""])
def test_unchanged_file_expires(path, text, monkeypatch):
    monkeypatch.setattr(holder_file, "GRACE_S", 0.2)
    path.with_name("lock.holder").write_text(text)
    waiting = HolderFile(path)
    assert not waiting.take()
    time.sleep(0.3)
    assert waiting.take()


def test_renewed_file_does_not_expire(path, monkeypatch):
    monkeypatch.setattr(holder_file, "GRACE_S", 0.5)
    monkeypatch.setattr(holder_file, "RENEW_S", 0.05)
    first, second = HolderFile(path), HolderFile(path)
    assert first.take()
    for _ in range(10):
        assert not second.take()
        time.sleep(0.1)
    first.release()
    assert second.take()


def test_newer_holder_is_not_removed(path):
    """Two waiting processes saw the old file; one has removed it and created its own."""
    living = HolderFile(path)
    living.take()
    HolderFile(path)._break("the old one")
    assert not HolderFile(path).take()
    living.release()
    assert os.listdir(path.parent) == []


def test_newer_holder_without_hard_links(path, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    living = HolderFile(path)
    living.take()
    HolderFile(path)._break("the old one")
    assert not HolderFile(path).take()
    living.release()
    assert os.listdir(path.parent) == []


def test_refused_creation_is_tried_again(path, monkeypatch):
    """sshfs says EPERM of a file that another node creates at the same moment; a folder may say so for ever."""

    def refused(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        waiting = HolderFile(path)
        assert not any(waiting.take() for _ in range(holder_file.MAX_REFUSALS // 2))
        waiting._file._refusals = holder_file.MAX_REFUSALS
        with pytest.raises(PermissionError):
            waiting.take()
    assert HolderFile(path).take()


def test_left_file_blocks_not_for_ever(path, monkeypatch):
    monkeypatch.setattr(holder_file, "GRACE_S", 0.2)
    monkeypatch.setattr(lock, "flock_stays_here", lambda folder: True)
    path.with_name("lock.holder").write_text("another-boot/1 17 x")
    with lock.try_exclusive_lock(path, what="it"):
        assert "another-boot" not in path.with_name("lock.holder").read_text()
