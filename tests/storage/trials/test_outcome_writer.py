"""How outcomes of claimed trials are recorded, and by whom; on each storage."""

from __future__ import annotations

import optuna

from hpotune.records.trial import TrialResult
from hpotune.storage.backends.connect import connect
from hpotune.storage.readers.read_only import rows_of
from tests.fixtures.store_workers import (
    FAILURE,
    finish,
    worker,
)
from tests.fixtures.study_rows import RACE


def test_failed_trial_keeps_its_failure(make_store):
    store = make_store()
    store.record_failure(store.claim(worker()).trial_id, FAILURE, metrics={"peak_memory_gb": 0.5})
    row = store.rows()[0]
    assert (row.state, row.failure, row.metrics) == ("failed", FAILURE, {"peak_memory_gb": 0.5})


def test_finished_trial_keeps_its_measurements(make_store):
    store = make_store()
    claim = store.claim(worker())
    result = TrialResult(
        number=claim.row.number, state="finished", values=[0.5], stderrs=[0.1], metrics={"loss": 2.0}
    )
    store.complete(claim.trial_id, result)
    row = store.rows()[0]
    assert (row.state, row.values, row.stderrs, row.metrics) == ("finished", (0.5,), (0.1,), {"loss": 2.0})


def test_raced_trial_is_complete_but_pruned(make_store, make_study, url):
    store = make_store()
    claim = store.claim(worker())
    store.complete(
        claim.trial_id,
        TrialResult(number=claim.row.number, state="finished", values=[0.5], stderrs=[0.04], race=RACE),
    )
    row = store.rows()[0]
    assert (row.state, row.decided, row.values, row.race) == ("stopped", True, (0.5,), RACE)
    trial = optuna.load_study(study_name="bowl", storage=connect(url)).trials[0]
    assert (trial.state, trial.values) == (optuna.trial.TrialState.COMPLETE, [0.5])
    assert rows_of(url, make_study())[0] == row


def test_paused_trial_keeps_number_and_params(make_store):
    store = make_store(budget={"trials": 1})
    before = store.claim(worker("one"))
    store.pause(before.trial_id, owner=before.row.worker)
    after = store.claim(worker("two"))
    assert (after.row.number, after.row.params) == (before.row.number, before.row.params)
    assert after.row.worker == worker("two")


def test_paused_trial_has_no_worker(make_store):
    store = make_store(budget={"trials": 1})
    store.pause(store.claim(worker()).trial_id)
    row = store.rows()[0]
    assert (row.state, row.worker) == ("waiting", None)


def test_former_worker_cannot_pause(make_store):
    store = make_store(budget={"trials": 1})
    lost = store.claim(worker("one"))
    store.pause(lost.trial_id)
    store.claim(worker("two"))
    assert not store.pause(lost.trial_id, owner=worker("one"))
    assert store.rows()[0].worker == worker("two")


def test_former_worker_cannot_record_failure(make_store):
    store = make_store(budget={"trials": 1})
    lost = store.claim(worker("one"))
    store.pause(lost.trial_id)
    store.claim(worker("two"))
    assert not store.record_failure(lost.trial_id, FAILURE, owner=worker("one"))
    assert store.rows()[0].state == "running"


def test_heartbeat_reports_a_lost_trial(make_store):
    store = make_store(budget={"trials": 1})
    lost = store.claim(worker("one"))
    store.pause(lost.trial_id)
    store.claim(worker("two"))
    assert not store.renew_heartbeat(lost.trial_id, owner=worker("one"))


def test_large_budget_appends_rows_gradually(make_store, monkeypatch):
    monkeypatch.setattr("hpotune.storage.trials.outcome_writer.AHEAD", 3)
    store = make_store(budget={"trials": 8}, search={"algorithm": "random"})
    assert len(store.rows()) == 3
    taken = 0
    while claim := store.claim(worker()):
        finish(store, claim)
        taken += 1
    assert taken == 8
