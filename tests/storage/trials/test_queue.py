"""Claims: which worker gets which trial, and how many a budget allows; on each storage."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest

from hpotune.errors import HpotuneError
from hpotune.records.trial import Failure, TrialResult
from hpotune.search.algorithms.gp import GpSampler
from hpotune.storage import TrialQueue, Wait
from tests.fixtures.store_workers import (
    EVAL_LOSS,
    FAILURE,
    TUNED,
    alive,
    finish,
    nothing_left,
    worker,
)


def race(url: str, study, store: TrialQueue, *, trials: int) -> list[str]:
    """Workers until the study is over: six at a time; killed ones are replaced. Returns what they printed."""
    printed: list[str] = []
    command = [sys.executable, "-m", "tests.storage.trials.racing_worker"]
    for round_ in range(20):
        racers = [
            subprocess.Popen(
                [*command, url, study.source.path, str(6 * round_ + index)],
                stdout=subprocess.PIPE, text=True,
            )
            for index in range(6)
        ]  # fmt: skip
        for racer in racers:
            printed += racer.communicate(timeout=300)[0].split()
        store.requeue_stale(
            lambda row: None if alive(row.worker) else Failure(cause="killed", message="died"),
            read_output=nothing_left,
        )
        if sum(row.state == "finished" for row in store.rows()) >= trials:
            return printed
    raise AssertionError(f"not over after 20 rounds: {[row.state for row in store.rows()]}")


def test_killed_workers_finish_the_exact_budget(url, make_study):
    study = make_study(budget={"trials": 30, "max_failed": 1000}, search={"algorithm": "random"})
    store = TrialQueue.create(url, study, folder="/f")
    printed = race(url, study, store, trials=30)
    rows = store.rows()
    finished = [row for row in rows if row.state == "finished"]
    assert sorted(printed) == sorted(str(row.number) for row in finished)
    assert len(finished) == 30
    assert len({row.number for row in rows}) == len(rows)
    assert len({row.params["params.x"] for row in finished}) == 30
    assert {row.state for row in rows} == {"finished", "failed"}


def test_claimed_trial_has_point_and_worker(make_store):
    claim = make_store().claim(worker())
    assert claim.row.worker == worker()
    assert -3 <= claim.row.params["params.x"] <= 3
    assert claim.row.state == "running"


def test_two_workers_claim_different_trials(make_store):
    store = make_store()
    assert store.claim(worker("one")).row.number != store.claim(worker("two")).row.number


def test_running_budget_leaves_nothing_to_claim(make_store):
    store = make_store(budget={"trials": 2})
    store.claim(worker()), store.claim(worker())
    assert store.claim(worker()) is None


def test_failed_trial_frees_its_slot(make_store):
    store = make_store(budget={"trials": 1})
    first = store.claim(worker())
    store.record_failure(first.trial_id, FAILURE)
    assert store.claim(worker()).row.number == first.row.number + 1


def test_round_starts_after_previous_round(make_store):
    store = make_store(budget={"trials": 5, "parallel": 2}, execution={"mode": "batch"})
    first, second = store.claim(worker()), store.claim(worker())
    assert store.claim(worker()) == Wait(why="round")
    finish(store, first)
    assert store.claim(worker()) == Wait(why="round")
    finish(store, second)
    assert store.claim(worker()).row.number == 2


def test_failed_trial_is_replaced_in_round(make_store):
    store = make_store(budget={"trials": 4, "parallel": 2}, execution={"mode": "batch"})
    finish(store, store.claim(worker()))
    store.record_failure(store.claim(worker()).trial_id, FAILURE)
    third = store.claim(worker())
    assert third.row.number == 2
    assert store.claim(worker()) == Wait(why="round")


def test_round_ignores_order_of_finishing(make_store):
    search = {"algorithm": "tpe", "seed": 1, "options": {"n_startup_trials": 2}}
    sections = {"budget": {"trials": 12, "parallel": 4}, "execution": {"mode": "batch"}, "search": search}
    slow, quick = make_store(**sections), make_store(**sections, name="quick")
    for store, at_once in ((slow, True), (quick, False)):
        for _ in range(3):
            claims = []
            for _ in range(4):
                claims.append(store.claim(worker()))
                if not at_once:
                    finish(store, claims[-1], claims[-1].row.params["params.x"] ** 2)
            for claim in claims if at_once else ():
                finish(store, claim, claim.row.params["params.x"] ** 2)
    assert [row.params for row in slow.rows()] == [row.params for row in quick.rows()]


def test_sequential_mode_claims_one_trial(make_store):
    store = make_store(budget={"trials": 2, "parallel": 8}, execution={"mode": "sequential"})
    claim = store.claim(worker())
    assert store.claim(worker()) == Wait(why="round")
    finish(store, claim)
    assert store.claim(worker()).row.number == 1


def test_unfitting_trial_is_left_for_others(make_store):
    store = make_store(budget={"trials": 1})
    assert store.claim(worker(), fits=lambda row: False) == Wait(why="time")
    assert store.claim(worker(), fits=lambda row: row.number == 0).row.number == 0


def test_retry_repeats_point_and_forgives(make_store):
    store = make_store(budget={"trials": 3})
    failed = store.claim(worker())
    store.record_failure(failed.trial_id, FAILURE)
    assert store.retry([failed.row.number]) == {0: 1}
    again = store.claim(worker())
    assert (again.row.number, again.row.params, again.row.retry_of) == (1, failed.row.params, 0)
    assert store.rows()[0].forgiven


def test_trial_ended_during_its_claim(make_store, url, make_study):
    """A worker stands still in its claim (a network mount that hangs); others take it for lost, and end its trial."""
    store = make_store(budget={"trials": 2})
    other = TrialQueue.open(url, make_study(budget={"trials": 2}))
    assign = store._assign_point

    def late(config, trial, **options):
        store._assign_point = assign
        other.complete(trial._trial_id, TrialResult(number=trial.number, state="finished", values=[0.5]))
        return assign(config, trial, **options)

    store._assign_point = late
    assert store.claim(worker("one")).row.number == 1
    assert [row.state for row in store.rows()][:2] == ["finished", "running"]


@pytest.mark.parametrize("ends", [False, True])
def test_retry_keeps_point_of_claimed_row(make_store, url, make_study, ends):
    """A worker claims the free row after `retry` has chosen it."""
    store = make_store(budget={"trials": 3})
    failed = store.claim(worker())
    store.record_failure(failed.trial_id, FAILURE)
    other = TrialQueue.open(url, make_study(budget={"trials": 3}))
    inner, taken = store._storage._inner, []
    write = inner.write_update

    def late(trial_id, update):
        if not taken:
            taken.append(other.claim(worker("two")))
            if ends:
                finish(other, taken[0])
        return write(trial_id, update)

    inner.write_update = late
    assert store.retry([0]) == {0: 2}
    rows = store.rows()
    assert (rows[1].retry_of, rows[1].params) == (None, taken[0].row.params)
    again = store.claim(worker("three"))
    assert (again.row.number, again.row.params) == (2, failed.row.params)


def test_retry_forgives_what_it_repeats(make_store, url, make_study):
    """Workers take the last free row: the other failure stays to be retried."""
    store = make_store(budget={"trials": 2, "max_failed": 9})
    for _ in range(2):
        store.record_failure(store.claim(worker()).trial_id, FAILURE)
    other = TrialQueue.open(url, make_study(budget={"trials": 2, "max_failed": 9}))
    inner, taken = store._storage._inner, []
    write = inner.write_update

    def late(trial_id, update):
        if not taken:
            taken.append(other.claim(worker("two")).row.number)
        return write(trial_id, update)

    inner.write_update = late
    with pytest.raises(HpotuneError, match="room for 1 of 2 trials"):
        store.retry([0, 1])
    assert [row.forgiven for row in store.rows()] == [True, False, False, False]
    assert store.rows()[3].retry_of == 0


def test_retry_refuses_unfailed_trials(make_store):
    store = make_store(budget={"trials": 3})
    store.claim(worker())
    with pytest.raises(HpotuneError, match="trial 0 has not failed"):
        store.retry([0])


def test_retry_needs_budget(make_store):
    store = make_store(budget={"trials": 1})
    store.record_failure(store.claim(worker()).trial_id, FAILURE)
    finish(store, store.claim(worker()))
    with pytest.raises(HpotuneError, match=r"room for 0 of 1 trials; `hpotune extend --trials \+1`"):
        store.retry([0])


def test_same_seed_gives_same_trials(make_study, url, tmp_path):
    drawn = []
    for name, storage_url in (("once", url), ("again", f"sqlite:///{tmp_path}/again.db")):
        study = make_study(name=name, budget={"trials": 12}, search={"algorithm": "tpe", "seed": 4})
        store = TrialQueue.create(storage_url, study, folder=name)
        while claim := store.claim(worker()):
            finish(store, claim, (claim.row.params["params.x"] - 1) ** 2)
        drawn.append([(row.params, row.values) for row in store.rows()])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "cmaes"])
def test_sampler_learns_beside_the_baseline(algorithm, make_study, tmp_path, monkeypatch):
    lora = {"r": {"int": [1, 64], "log": True}}
    sections = {**TUNED, "lora": lora, "score": EVAL_LOSS, "budget": {"trials": 12}}
    study = make_study(**sections, search={"algorithm": algorithm})
    store = TrialQueue.create(f"sqlite:///{tmp_path}/s.db", study, folder="f")
    spaces = []
    own = {"tpe": optuna.samplers.TPESampler, "gp": GpSampler, "cmaes": optuna.samplers.CmaEsSampler}
    sampler = own[algorithm]
    original = sampler.sample_relative

    def spy(self, study, trial, search_space):
        spaces.append(set(search_space))
        return original(self, study, trial, search_space)

    monkeypatch.setattr(sampler, "sample_relative", spy)
    for number in range(12):
        finish(store, store.claim(worker()), float(number))
    assert spaces[-1] == {"lora.r", "train.learning_rate"}


def test_worker_without_time_waits(make_store):
    store = make_store(budget={"trials": 500}, search={"algorithm": "random"})
    assert store.claim(worker(), fits=lambda row: False) == Wait(why="time")
