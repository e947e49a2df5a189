"""What a journal's lock outlasts: a holder that died, another machine's, Optuna's own; and what it refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.study import StudyDirection

from hpotune.errors import StoreError
from hpotune.storage.backends import journal_lock as own
from hpotune.storage.backends.connect import connect
from hpotune.storage.backends.journal_lock import Lock

MINIMIZE = [StudyDirection.MINIMIZE]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def held_by_another(path: Path) -> subprocess.Popen[str]:
    code = (
        "import sys, time; from hpotune.storage.backends.journal_lock import Lock; "
        "Lock(sys.argv[1]).acquire(); print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_killed_holders_lock_is_broken(path):
    holder = held_by_another(path)
    holder.kill()
    holder.wait()
    start = time.monotonic()
    assert Lock(str(path)).acquire()
    assert time.monotonic() - start < own.GRACE_S / 2


@pytest.mark.parametrize("other", ["another-boot/1 17 x", ""])
def test_remote_holders_lock_expires(path, other, monkeypatch):
    monkeypatch.setattr(own, "GRACE_S", 0.3)
    Path(f"{path}.lock").write_text(other)
    assert Lock(str(path)).acquire()


def test_optunas_lock_expires(path, monkeypatch):
    path.touch()
    monkeypatch.setattr(own, "GRACE_S", 0.3)
    theirs = optuna.storages.journal.JournalFileSymlinkLock(str(path))
    theirs.acquire()
    assert Lock(str(path)).acquire()


def test_active_lock_is_restored(path):
    """Two waiting processes saw the old lock; one has broken it and taken its own."""
    living = Lock(str(path))
    living.acquire()
    Lock(str(path))._break("the old one")
    assert Path(f"{path}.lock").exists()
    living.release()
    assert not Path(f"{path}.lock").exists()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK])
def test_lock_returns_without_hard_links(path, monkeypatch, error):
    """CIFS, exFAT and many FUSE types have none; nothing is left beside the journal."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refused)
    living = Lock(str(path))
    living.acquire()
    Lock(str(path))._break("the old one")
    assert own._holder(f"{path}.lock") == living._mine
    living.release()
    assert os.listdir(path.parent) == []
    theirs = optuna.storages.journal.JournalFileSymlinkLock(str(path))
    theirs.acquire()
    Lock(str(path))._break("the old one")
    assert Path(f"{path}.lock").is_symlink()


def test_former_holder_keeps_next_lock(path):
    slow, next_one = Lock(str(path)), Lock(str(path))
    slow.acquire()
    slow._break(own._holder(f"{path}.lock"))
    next_one.acquire()
    slow.release()
    assert Path(f"{path}.lock").exists()


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_lock_that_is_no_file(path, kind):
    lock = Path(f"{path}.lock")
    lock.mkdir() if kind == "folder" else os.mkfifo(lock)
    what = "a folder" if kind == "folder" else "no regular file"
    with pytest.raises(StoreError, match=rf"store.lock: is {what}, and the journal's lock must be a file"):
        connect(f"journal:///{path}", patience_s=3600).create_new_study(MINIMIZE, "one")
    assert lock.exists()


def test_waiting_is_reported(path, monkeypatch, capsys):
    monkeypatch.setattr(own, "GRACE_S", 0.4)
    monkeypatch.setattr(own, "REPORT_AFTER_S", 0.1)
    Path(f"{path}.lock").write_text("another-boot/1 17 x")
    assert Lock(str(path)).acquire()
    assert f"waiting for {path}.lock, which another process holds" in capsys.readouterr().err


def test_lock_that_cannot_be_removed(tmp_path):
    """The lock of a process that has ended, in a folder that may not be written."""
    code = (
        "import os, sys\nfrom hpotune.errors import StoreError\n"
        "from hpotune.storage.backends.journal_lock import Lock\n"
        "os.chmod(os.path.dirname(sys.argv[1]), 0o555)\n"
        "try: Lock(sys.argv[1])._break('x')\n"
        "except StoreError as error: print(error)"
    )
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "store.lock").write_text("x")
    # root may write everywhere, unless that right is taken from it
    as_others = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_others, sys.executable, "-c", code, folder / "store"], capture_output=True, text=True, check=True
    )
    assert "cannot be removed (Permission denied); remove it once no worker of the study runs" in done.stdout


@pytest.mark.parametrize(("number", "lasting"), [(1, False), (1, True), (13, False)])
def test_refused_lock_is_tried_again(path, monkeypatch, number, lasting):
    """EPERM (1) is sshfs where another node was quicker; lasting, or EACCES (13), it is an error."""
    refusals, opened = [number] * (1000 if lasting else 5), os.open

    def refusing(name: str, flags: int, *more: int) -> int:
        if flags & os.O_EXCL and refusals:
            raise PermissionError(refusals.pop(), "refused")
        return opened(name, flags, *more)

    monkeypatch.setattr(os, "open", refusing)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    if lasting or number == 13:
        with pytest.raises(PermissionError):
            Lock(str(path)).acquire()
    else:
        assert Lock(str(path)).acquire()
