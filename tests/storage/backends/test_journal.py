"""What a journal outlasts: half a line, a full disk; and what it refuses: lines that are no records."""

from __future__ import annotations

import resource
from pathlib import Path

import optuna
import pytest
from optuna.study import StudyDirection

from hpotune.errors import StoreError
from hpotune.search.base.trial_update import TrialUpdate
from hpotune.storage.backends.connect import connect
from hpotune.storage.backends.journal import journal

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


def test_claim_is_signed_later(tmp_path):
    """The disk refuses the second record of a claim, the worker's name, and the call is repeated."""
    storage = connect(f"journal:///{tmp_path / 'store'}", patience_s=60)
    study_id = storage.create_new_study(directions=MINIMIZE, study_name="s")
    waiting = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING)
    trial_id = storage.create_new_trial(study_id, template_trial=waiting)
    file, refused = storage._inner._backend, []
    append = file.append_logs

    def full(logs, **options):
        if "user_attr" in logs[0] and not refused:
            refused.append(logs)
            raise OSError(28, "No space left on device")
        return whole(logs, **options) if options else append(logs)

    whole = getattr(file, "append_if", None)
    file.append_logs = file.append_if = full
    update = TrialUpdate(state=optuna.trial.TrialState.RUNNING, user_attrs={"worker": {"job": "7"}})
    assert storage.write_update(trial_id, update)
    trial = storage.get_trial(trial_id)
    assert refused
    assert (trial.state, trial.user_attrs["worker"]) == (optuna.trial.TrialState.RUNNING, {"job": "7"})


DAMAGE = {
    "text": b"garbage\n",
    "NUL bytes": b"\0\0\0\0\n",
    "not UTF-8": b"\xff\xfe\n",
    "null": b"null\n",
    "a list": b"[]\n",
    "an empty object": b"{}\n",
    "deep nesting": b"[" * 100_000 + b"\n",
    "no study": b'{"op_code":4,"worker_id":"w"}\n',
    "directions of no kind": b'{"op_code":0,"worker_id":"w","study_name":"three","directions":[7]}\n',
    "two records in a line": b'{"op_code":10,"worker_id":"w"},{"op_code":10,"worker_id":"w"}\n',
}


SIMILAR = ("no study", "directions of no kind", "two records in a line")
"""Records in form: a writer that was open before notices them when it reads again."""


@pytest.mark.parametrize("position", ["first", "between", "last"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_line_is_refused(path, damage, position):
    writer = journal(str(path))
    writer.create_new_study(MINIMIZE, "one")
    writer.create_new_study(MINIMIZE, "two")
    lines = path.read_bytes().splitlines(keepends=True)
    at = {"first": 0, "between": 1, "last": 2}[position]
    damaged = b"".join([*lines[:at], DAMAGE[damage], *lines[at:]])
    path.write_bytes(damaged)
    number = (
        f"line {at + 1} is no record|is no journal of Optuna" if at == 0 else f"line {at + 1} is no record"
    )
    with pytest.raises(StoreError, match=number):
        connect(f"journal:///{path}").get_all_studies()
    if position == "last" and damage not in SIMILAR:
        with pytest.raises(StoreError, match=number):
            writer.create_new_study(MINIMIZE, "three")
    assert path.read_bytes() == damaged


def test_record_of_newer_optuna(path):
    path.write_text('{"op_code":11,"worker_id":"w"}\n')
    with pytest.raises(
        StoreError, match=r"line 1 is a record of a newer Optuna .operation 11.*pip install -U"
    ):
        connect(f"journal:///{path}")


@pytest.mark.parametrize(
    "text", ["my thesis", "my thesis\nits end", '{"name": "other"}\n', '{"op_code": "x"}']
)
def test_foreign_file_is_left_alone(path, text):
    path.write_text(text)
    with pytest.raises(StoreError, match=r"is no journal of Optuna .*name another file"):
        connect(f"journal:///{path}")
    assert path.read_text() == text


def test_foreign_file_is_never_cut(path):
    """It was put there after the store was opened."""
    writer = journal(str(path))
    path.write_text("my thesis")
    with pytest.raises(StoreError, match="is no journal of Optuna"):
        writer.create_new_study(MINIMIZE, "one")
    assert path.read_text() == "my thesis"


def test_half_first_record_is_cut(path):
    path.write_text('{"op_code":0,"wor')
    connect(f"journal:///{path}").create_new_study(MINIMIZE, "one")
    assert names(path) == ["one"]
