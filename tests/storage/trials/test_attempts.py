"""Attempts of a trial: what each keeps, and how many a cause allows; on each storage."""

from __future__ import annotations

import pytest

from hpotune.records.trial import Failure
from hpotune.storage import TrialOutput
from tests.fixtures.store_workers import (
    CANCELLED,
    CRASHED,
    FAILURE,
    TIMED_OUT,
    finish,
    nothing_left,
    worker,
)


def test_attempts_keep_their_gpus_and_times(make_store):
    store = make_store(budget={"trials": 1}, resources={"gpus": 4})
    claim = store.claim(worker("one"))
    store.record_failure(claim.trial_id, TIMED_OUT, owner=claim.row.worker)
    finish(store, store.claim(worker("two")))
    row = store.rows()[0]
    assert [(a.worker.host, a.outcome, a.cause, a.gpus) for a in row.attempts] == [
        ("host-one", "paused", "timeout", 4),
        ("host-two", "finished", None, 4),
    ]
    assert row.gpu_hours == pytest.approx(4 * row.seconds / 3600)


@pytest.mark.parametrize(
    ("failure", "states"),
    [
        (CANCELLED, ["waiting"] * 5),
        (CRASHED, ["waiting", "waiting", "failed"]),
        (Failure(cause="node", message="ECC"), ["waiting", "waiting", "failed"]),
        (Failure(cause="oom", message="no memory"), ["failed"]),
        (TIMED_OUT, ["waiting", "waiting", "failed"]),
    ],
)
def test_cause_limits_retries_of_stale_trials(make_store, failure, states):
    store = make_store(budget={"trials": 1})
    for state in states:
        assert store.claim(worker()).row.number == 0
        assert store.requeue_stale(lambda _: failure, read_output=nothing_left) == [0]
        assert store.rows()[0].state == state


def test_trial_without_new_checkpoints_fails(make_store):
    store = make_store(budget={"trials": 1})
    for checkpoint in (1.0, 2.0, 3.0, 3.0, 3.0, 3.0):
        assert store.claim(worker()).row.number == 0
        store.requeue_stale(
            lambda _: TIMED_OUT, read_output=lambda _, at=checkpoint: TrialOutput(checkpoint=at)
        )
    row = store.rows()[0]
    assert (row.state, len(row.attempts)) == ("failed", 6)
    assert "interrupted 3 times without a newer checkpoint" in row.failure.message


def test_pauses_are_not_limited(make_store):
    store = make_store(budget={"trials": 1})
    for _ in range(5):
        claim = store.claim(worker())
        store.pause(claim.trial_id, owner=claim.row.worker)
    assert store.rows()[0].state == "waiting"


def test_retry_limits_attempts_per_cause(make_store):
    store = make_store(budget={"trials": 1}, retry={"user": 1})
    outcomes = [store.record_failure(store.claim(worker()).trial_id, FAILURE) for _ in range(2)]
    assert outcomes == ["again", "failed"]
