"""Locks are plain files of their own: no link is followed and no other file is overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpotune.errors import HpotuneError, StoreError
from hpotune.workspace.lock import exclusive_lock, try_exclusive_lock


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "folder"])
def test_lock_overwrites_nothing(kind: str, tmp_path: Path) -> None:
    lock, precious = tmp_path / "lock", tmp_path / "precious"
    precious.write_text("mine")
    make = {"symlink": os.symlink, "hard link": os.link, "fifo": lambda _, path: os.mkfifo(path)}
    make.get(kind, lambda _, path: path.mkdir())(precious, lock)
    for hold in (exclusive_lock(lock), try_exclusive_lock(lock, what="it")):
        with pytest.raises(StoreError, match=r"lock: is (a symbolic link|no plain file)"), hold:
            raise AssertionError
    assert precious.read_text() == "mine"


def test_lock_names_its_holder(tmp_path: Path) -> None:
    with try_exclusive_lock(tmp_path / "jobs" / "lock", what="`hpotune run`"):
        with pytest.raises(HpotuneError, match=f"is already running: process {os.getpid()} on"):
            with try_exclusive_lock(tmp_path / "jobs" / "lock", what="`hpotune run`"):
                raise AssertionError
    with exclusive_lock(tmp_path / "jobs" / "lock"):
        pass
