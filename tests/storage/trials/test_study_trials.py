"""The trials of a study as Optuna stores them: baseline, start points, parameters; on each storage."""

from __future__ import annotations

import optuna

from hpotune.storage.backends.connect import connect
from tests.fixtures.store_workers import (
    EVAL_LOSS,
    FAILURE,
    TUNED,
    worker,
)


def test_baseline_is_trial_zero_without_params(make_store):
    row = make_store(**TUNED, score=EVAL_LOSS).claim(worker()).row
    assert (row.number, row.kind, row.params) == (0, "baseline", {})


def test_failed_baseline_is_repeated(make_store):
    store = make_store(**TUNED, score=EVAL_LOSS, budget={"trials": 3})
    store.record_failure(store.claim(worker()).trial_id, FAILURE)
    kinds = []
    while claim := store.claim(worker()):
        kinds.append(claim.row.kind)
    assert sorted(kinds) == ["baseline", "trial", "trial"]


def test_second_baseline_becomes_a_trial(make_store, url):
    store = make_store(**TUNED, score=EVAL_LOSS, budget={"trials": 2})
    twin = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"kind": "baseline"})
    storage = connect(url)
    storage.create_new_trial(storage.get_study_id_from_name("bowl"), template_trial=twin)
    store.claim(worker())
    store.record_failure(store.claim(worker()).trial_id, FAILURE)
    assert store.claim(worker()).row.kind == "trial"


def test_first_trial_takes_the_priors(make_store):
    store = make_store(**TUNED, score=EVAL_LOSS)
    store.claim(worker())
    rates = [store.claim(worker()).row.params["train.learning_rate"] for _ in range(2)]
    assert rates[0] == 2e-4
    assert rates[1] != 2e-4


def test_surplus_rows_are_hidden_and_unclaimed(make_store, url):
    store = make_store(budget={"trials": 2})
    storage = connect(url)
    surplus = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"kind": "trial"})
    storage.create_new_trial(storage.get_study_id_from_name("bowl"), template_trial=surplus)
    assert len(store.rows()) == 2
    store.claim(worker()), store.claim(worker())
    assert store.claim(worker()) is None


def test_conditional_params_follow_their_condition(make_store):
    params = {
        "optimizer": {"choice": ["sgd", "adam"]},
        "momentum": {"float": [0.1, 0.9], "when": {"params.optimizer": "sgd"}},
    }
    store = make_store(params=params, budget={"trials": 12})
    rows = [store.claim(worker()).row.params for _ in range(12)]
    assert {("params.momentum" in row) == (row["params.optimizer"] == "sgd") for row in rows} == {True}
    assert {row["params.optimizer"] for row in rows} == {"sgd", "adam"}


def test_choice_of_lists_returns_lists(make_store):
    store = make_store(params={"modules": {"choice": [["q", "v"], "all"]}}, budget={"trials": 8})
    drawn = [store.claim(worker()).row.params["params.modules"] for _ in range(8)]
    assert ["q", "v"] in drawn
