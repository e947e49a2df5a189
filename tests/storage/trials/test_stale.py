"""Trials of stale workers: which are released, what is recorded; on each storage."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest

from hpotune.records.trial import Attempt, Failure, TrialResult, TrialRow
from hpotune.storage import (
    TrialOutput,
    TrialQueue,
    UnchangedHeartbeats,
    lease_expired,
    output_reader,
    requeue_lock,
)
from hpotune.storage.backends.connect import connect
from hpotune.storage.readers.trial_record import stored_attempts
from hpotune.storage.trials import stale
from hpotune.storage.trials.queue import UNOWNED_S
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.store_workers import (
    CANCELLED,
    CRASHED,
    FAILURE,
    nothing_left,
    worker,
)


def test_active_worker_is_not_requeued(make_store):
    store = make_store()
    store.claim(worker())
    assert store.requeue_stale(lambda _: None, read_output=nothing_left) == []


def test_stale_workers_result_is_recorded(make_store):
    store = make_store()
    claim = store.claim(worker())
    left = TrialResult(number=claim.row.number, state="finished", values=[0.25])
    store.requeue_stale(lambda _: FAILURE, read_output=lambda number: TrialOutput(result=left))
    row = store.rows()[0]
    assert (row.state, row.values) == ("finished", (0.25,))


def test_stale_workers_checkpointed_trial_waits_again(make_store):
    store = make_store()
    store.claim(worker())
    paused = TrialResult(number=0, state="paused")
    store.requeue_stale(lambda _: FAILURE, read_output=lambda _: TrialOutput(result=paused))
    assert store.rows()[0].state == "waiting"


@pytest.mark.parametrize(("cause", "said"), [("node", "node"), ("preempted", "preempted"), ("killed", None)])
def test_pause_of_lost_job_has_cause(make_store, cause, said):
    """The trial's process wrote its pause, and its worker was gone before it could say why."""
    store = make_store(budget={"trials": 1})
    store.claim(worker())
    paused = TrialOutput(result=TrialResult(number=0, state="paused"))
    store.requeue_stale(lambda _: Failure(cause=cause, message="lost"), read_output=lambda _: paused)
    row = store.rows()[0]
    assert (row.state, row.attempts[0].outcome, row.attempts[0].cause) == ("waiting", "paused", said)


def test_requeued_trial_completes_only_once(make_store):
    store = make_store(budget={"trials": 1})
    claim = store.claim(worker())
    store.requeue_stale(lambda _: FAILURE, read_output=nothing_left)
    assert not store.complete(claim.trial_id, TrialResult(number=0, state="finished", values=[1.0]))
    assert [row.state for row in store.rows()] == ["failed", "waiting"]


def test_stale_attempt_ends_with_last_heartbeat(make_store):
    store = make_store(budget={"trials": 1})
    claim = store.claim(worker())
    assert store.renew_heartbeat(claim.trial_id, owner=worker())
    beat = store.rows()[0].last_heartbeat
    store.requeue_stale(lease_expired(60, now=beat + 61), read_output=nothing_left)
    attempt = store.rows()[0].attempts[0]
    assert (attempt.end, attempt.ended_by_other, attempt.cause) == (beat, True, "killed")


def test_heartbeat_within_lease_is_not_stale(make_store):
    store = make_store(budget={"trials": 1})
    claim = store.claim(worker())
    store.renew_heartbeat(claim.trial_id, owner=worker())
    assert (
        store.requeue_stale(
            lease_expired(60, now=store.rows()[0].last_heartbeat + 59), read_output=nothing_left
        )
        == []
    )


@pytest.mark.parametrize("skew_s", [-600.0, 0.0, 600.0])
def test_only_silent_worker_is_stale(skew_s):
    """By the watcher's own clock, whatever the workers' clocks say."""
    row = TrialRow(number=3, kind="trial", state="running", params={}, worker=worker(), start=1000.0 + skew_s)
    now = [0.0]
    watch = UnchangedHeartbeats(60, clock=lambda: now[0])
    for look in range(20):
        now[0] = 10.0 * look
        beating = replace(row, last_heartbeat=1000.0 + skew_s + min(10.0 * look, 100.0))
        assert bool(watch.stale_failure(beating)) == (look > 16), look


def test_stopped_watcher_has_seen_nothing():
    row = TrialRow(number=3, kind="trial", state="running", params={}, worker=worker(), start=1000.0)
    now = [0.0]
    watch = UnchangedHeartbeats(60, clock=lambda: now[0])
    assert watch.stale_failure(row) is None
    now[0] = 3600.0
    assert watch.stale_failure(row) is None
    now[0] += 1
    assert watch.stale_failure(replace(row, last_heartbeat=4590.0)) is None


def test_one_process_requeues_at_a_time(tmp_path, monkeypatch):
    folder = StudyFolder(path=tmp_path)
    with requeue_lock(folder) as first:
        monkeypatch.setattr(stale, "REQUEUE_PATIENCE_S", 0.1)
        with requeue_lock(folder) as second:
            assert (first, second) == (True, False)
    with requeue_lock(folder) as again:
        assert again


def test_foreign_output_is_not_read(tmp_path, capsys):
    """Another user may change the trial's folder: its trial is requeued without what lies there."""
    folder = StudyFolder(path=tmp_path)
    own = folder.trial(3)
    own.mkdir(parents=True)
    (own / "result.json").symlink_to("/etc/hostname")
    own.chmod(0o777)
    assert output_reader(folder)(3) == TrialOutput()
    assert "trial 3" in capsys.readouterr().err


def test_requeuing_needs_no_lock_file(tmp_path):
    (tmp_path / "jobs" / ".requeue.lock").mkdir(parents=True)
    with requeue_lock(StudyFolder(path=tmp_path)) as held:
        assert held


def test_running_trial_without_worker_is_requeued(make_store, url):
    store = make_store(budget={"trials": 1})
    storage = connect(url)
    trial = storage.get_all_trials(storage.get_study_id_from_name("bowl"))[0]
    storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.RUNNING)
    later = storage.get_trial(trial._trial_id).datetime_start.timestamp() + UNOWNED_S + 1
    store.requeue_stale(lambda _: None, read_output=nothing_left, now=later - 60)
    assert store.rows()[0].state == "running"
    store.requeue_stale(lambda _: None, read_output=nothing_left, now=later)
    assert store.rows()[0].state == "waiting"


def test_requeued_job_releases_only_own_trials(make_store):
    store = make_store()
    mine = store.claim(worker("old", job="7", task="0.0")).row.number
    store.claim(worker("sibling", job="7", task="0.1"))
    store.claim(worker("other", job="8", task="0.0"))
    me = worker("new", job="7", task="0.0")
    assert store.requeue_own(me, is_running=lambda _: False, read_output=nothing_left) == [mine]
    assert [row.state for row in store.rows()][:3] == ["waiting", "running", "running"]


def test_workers_of_script_keep_trials(make_store):
    store = make_store()
    store.claim(worker("old"))
    assert store.requeue_own(worker("new"), is_running=lambda _: True, read_output=nothing_left) == []


def test_half_released_trial_waits_again(make_store):
    """Its attempt is recorded and its worker's name is removed, but it is not WAITING yet."""
    store = make_store(budget={"trials": 1})
    claim = store.claim(worker())
    store._storage.set_trial_user_attr(claim.trial_id, "worker", None)
    assert (
        store.requeue_stale(lambda _: FAILURE, read_output=nothing_left) == []
    )  # taken just now by one that has not signed yet
    ended = Attempt(worker=worker(), start=claim.row.start, end=claim.row.start + 1, outcome="paused")
    store._storage.set_trial_user_attr(claim.trial_id, "attempts", stored_attempts([ended]))
    assert (
        store.requeue_stale(lambda _: None, read_output=nothing_left) == []
    )  # its releaser is active and continues
    assert store.requeue_stale(lambda _: FAILURE, read_output=nothing_left) == [0]
    assert store.claim(worker("two")).row.number == 0


@pytest.mark.parametrize("cause", ["preempted", "node"])
def test_requeued_trial_keeps_the_cause(make_store, cause):
    store = make_store(budget={"trials": 1})
    store.claim(worker("old"))
    store.requeue_own(worker("new"), is_running=lambda _: False, read_output=nothing_left, cause=cause)
    assert [attempt.cause for attempt in store.rows()[0].attempts] == [cause]


def test_stale_worker_is_recorded_once(make_store):
    store = make_store(budget={"trials": 1})
    claim = store.claim(worker())
    ended = Attempt(
        worker=worker(), start=claim.row.start, end=claim.row.start, outcome="paused", ended_by_other=True
    )
    store._storage.set_trial_user_attr(
        claim.trial_id, "attempts", stored_attempts([ended])
    )  # the other is half-way
    store.requeue_stale(lambda _: CRASHED, read_output=nothing_left)
    assert [attempt.ended_by_other for attempt in store.rows()[0].attempts] == [True]


@pytest.mark.parametrize("left", ["nothing", "failure", "checkpoint"])
def test_reading_output_takes_long(make_store, left):
    """Another process requeues the trial and a worker claims it while its checkpoint is read."""
    store = make_store(budget={"trials": 1})
    store.claim(worker("one"))
    found = {"failure": TrialResult(number=0, state="failed", failure=FAILURE)}
    result = found.get(left, TrialResult(number=0, state="paused") if left == "checkpoint" else None)

    def slow(_):
        store.requeue_stale(lambda _: CANCELLED, read_output=nothing_left)
        assert store.claim(worker("two")).row.number == 0
        return TrialOutput(result=result)

    assert store.requeue_stale(lambda _: CRASHED, read_output=slow) == []
    row = store.rows()[0]
    assert (row.state, row.worker, len(row.attempts)) == ("running", worker("two"), 1)


def before_write(store, chosen, act) -> list[int]:
    """Have `act` done once, before the first update that is `chosen`; returns the trials where it was."""
    inner, done = store._storage._inner, []
    write = inner.write_update

    def interrupted(trial_id, update):
        if not done and chosen(update):
            done.append(trial_id)
            act(trial_id)
        return write(trial_id, update)

    inner.write_update = interrupted
    return done


def test_next_claim_is_never_released(make_store, url, make_study):
    """The trial is released and claimed by others when the release has been decided but not written."""
    store, other = make_store(budget={"trials": 1}), TrialQueue.open(url, make_study(budget={"trials": 1}))
    store.claim(worker("one"))

    def meanwhile(_):
        other.requeue_stale(lambda _: CANCELLED, read_output=nothing_left)
        assert other.claim(worker("two")).row.number == 0

    done = before_write(store, lambda update: "attempts" in update.user_attrs, meanwhile)
    assert store.requeue_stale(lambda _: CANCELLED, read_output=nothing_left) == []
    row = other.rows()[0]
    assert (done, row.state, row.worker, len(row.attempts)) == ([row_id(other)], "running", worker("two"), 1)


def row_id(store) -> int:
    return store._trials.all()[0]._trial_id


def test_release_is_one_write(make_store, url, make_study):
    """No other process sees the trial running without a worker: after hours it would release it a second time."""
    store, other = make_store(budget={"trials": 1}), TrialQueue.open(url, make_study(budget={"trials": 1}))
    claim = store.claim(worker("one"))
    inner, seen = store._storage._inner, []

    def looking(call):
        return lambda *arguments: seen.append(other.rows()[0]) or call(*arguments)

    for name in ("write_update", "set_trial_state_values"):
        setattr(inner, name, looking(getattr(inner, name)))
    assert store.pause(claim.trial_id, owner=worker("one"))
    assert [(row.state, row.worker) for row in seen if row.worker is None] == []


def test_fresh_heartbeat_keeps_the_trial(make_store):
    """The worker renews it after the look that found it stale."""
    store = make_store(budget={"trials": 1})
    claim = store.claim(worker())

    def renewing(_):
        assert store.renew_heartbeat(claim.trial_id, owner=worker())
        return TrialOutput()

    assert store.requeue_stale(lambda _: CRASHED, read_output=renewing) == []
    row = store.rows()[0]
    assert row.state == "running"
    assert row.last_heartbeat > row.start


def test_slow_requeue_keeps_next_workers_trial(make_store):
    store = make_store(budget={"trials": 1})
    store.claim(worker("one"))
    write = store._storage._inner.write_update
    again = []

    def interrupted(trial_id, update):
        written = write(trial_id, update)
        if update.user_attrs.get("worker", "") is None and not again:
            again.append(True)  # the other sweep ends, and somebody takes the trial
            store._storage.set_trial_state_values(trial_id, optuna.trial.TrialState.WAITING)
            assert store.claim(worker("two")).row.number == 0
        return written

    store._storage._inner.write_update = interrupted
    store.requeue_stale(lambda _: CRASHED, read_output=nothing_left)
    assert again
    assert (store.rows()[0].state, store.rows()[0].worker) == ("running", worker("two"))
