"""What a journal outlasts: half a line, a full disk, a lock whose holder died."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.study import StudyDirection

from hpotune.storage.backends import journal as own
from hpotune.storage.backends.connect import connect
from hpotune.storage.backends.journal import Lock, journal

MINIMIZE = [StudyDirection.MINIMIZE]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def names(path: Path) -> list[str]:
    """Of the studies, as a fresh reader of plain Optuna sees them."""
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return [study.study_name for study in optuna.storages.JournalStorage(backend).get_all_studies()]


@pytest.mark.parametrize("half", ['{"op_code":0,"wor', "x" * 10_000])
def test_append_removes_incomplete_line(path, half):
    writer = journal(str(path))
    writer.create_new_study(MINIMIZE, "one")
    with path.open("a") as file:
        file.write(half)
    writer.create_new_study(MINIMIZE, "two")
    assert names(path) == ["one", "two"]


def test_full_disk_leaves_whole_lines(path):
    """A limit on the size of files acts as a full disk does: some bytes are written, then none."""
    writer = journal(str(path))
    writer.create_new_study(MINIMIZE, "one")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 7, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.create_new_study(MINIMIZE, "two")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    writer.create_new_study(MINIMIZE, "two")
    assert names(path) == ["one", "two"]


def held_by_another(path: Path) -> subprocess.Popen[str]:
    code = (
        "import sys, time; from hpotune.storage.backends.journal import Lock; "
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


def test_former_holder_keeps_next_lock(path):
    slow, next_one = Lock(str(path)), Lock(str(path))
    slow.acquire()
    slow._break(own._holder(f"{path}.lock"))
    next_one.acquire()
    slow.release()
    assert Path(f"{path}.lock").exists()


def test_released_trial_is_claimed_once(tmp_path):
    """The one that held it before looks, the other takes it, and only then the first one writes."""
    url = f"journal:///{tmp_path / 'store'}"
    before, other = connect(url), connect(url)
    study_id = before.create_new_study(directions=[optuna.study.StudyDirection.MINIMIZE], study_name="s")
    waiting = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING)
    trial_id = before.create_new_trial(study_id, template_trial=waiting)
    assert before.set_trial_state_values(trial_id, optuna.trial.TrialState.RUNNING)
    before.set_trial_state_values(trial_id, optuna.trial.TrialState.WAITING)
    inner = before._inner
    write = inner._backend.append_logs

    def late(logs):
        assert other.set_trial_state_values(trial_id, optuna.trial.TrialState.RUNNING)
        inner._backend.append_logs = write
        write(logs)

    inner._backend.append_logs = late
    assert not before.set_trial_state_values(trial_id, optuna.trial.TrialState.RUNNING)
