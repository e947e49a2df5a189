"""Who gets which trial, and how often: on SQLite, a journal file and PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from hpotune.errors import HpotuneError, StoreError
from hpotune.records.trial import Attempt, Failure, TrialResult, Worker
from hpotune.search.algorithms.gp import GpSampler
from hpotune.storage import TrialOutput, TrialQueue, Wait, lease_expired
from hpotune.storage.backends.connect import connect
from hpotune.storage.readers.trial_record import stored_attempts
from hpotune.storage.trials.queue import UNOWNED_S
from tests.storage.conftest import worker

FAILURE = Failure(cause="user", message="no")
MODEL = {"model": {"path": "m"}, "data": {"path": "d"}, "python": None, "params": None}
TUNED = {**MODEL, "train": {"learning_rate": {"float": [1e-5, 1e-1], "log": True, "prior": 2e-4}}}
EVAL_LOSS = {"objective": {"metric": "eval_loss"}}


def nothing_left(_: int) -> TrialOutput:
    return TrialOutput()


def finish(store: TrialQueue, claim, value: float = 1.0) -> None:
    store.complete(claim.trial_id, TrialResult(number=claim.row.number, state="finished", values=[value]))


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


def alive(one: Worker) -> bool:
    return Path(f"/proc/{one.pid}").exists()


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


def test_requeued_trial_completes_only_once(make_store):
    store = make_store(budget={"trials": 1})
    claim = store.claim(worker())
    store.requeue_stale(lambda _: FAILURE, read_output=nothing_left)
    assert not store.complete(claim.trial_id, TrialResult(number=0, state="finished", values=[1.0]))
    assert [row.state for row in store.rows()] == ["failed", "waiting"]


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


CANCELLED = Failure(cause="killed", message="its job 7 ended as CANCELLED (exit 0:15) on n1", cancelled=True)
CRASHED = Failure(cause="killed", message="its job 7 ended as FAILED (exit 9:0) on n1")
TIMED_OUT = Failure(cause="timeout", message="its job 7 ended as TIMEOUT (exit 0:0) on n1")


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


def test_heartbeat_reports_a_lost_trial(make_store):
    store = make_store(budget={"trials": 1})
    lost = store.claim(worker("one"))
    store.pause(lost.trial_id)
    store.claim(worker("two"))
    assert not store.renew_heartbeat(lost.trial_id, owner=worker("one"))


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


def test_retry_refuses_trials_that_did_not_fail(make_store):
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


def test_workers_of_one_script_keep_their_trials(make_store):
    store = make_store()
    store.claim(worker("old"))
    assert store.requeue_own(worker("new"), is_running=lambda _: True, read_output=nothing_left) == []


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


def test_large_budget_appends_rows_gradually(make_store, monkeypatch):
    monkeypatch.setattr("hpotune.storage.trials.outcome_writer.AHEAD", 3)
    store = make_store(budget={"trials": 8}, search={"algorithm": "random"})
    assert len(store.rows()) == 3
    taken = 0
    while claim := store.claim(worker()):
        finish(store, claim)
        taken += 1
    assert taken == 8


def test_study_is_ordinary_optuna_study(make_store, url):
    store = make_store(params={"x": {"float": [-3.0, 3.0]}, "deep": {"k": {"int": [1, 4]}}})
    finish(store, store.claim(worker()), 0.5)
    loaded = optuna.load_study(study_name="bowl", storage=connect(url))
    assert loaded.best_value == 0.5
    assert loaded.best_params.keys() == {"params.x", "params.deep.k"}
    assert loaded.best_trial.user_attrs["kind"] == "trial"
    assert loaded.metric_names == ["value"]


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


def test_study_of_another_folder_is_refused(make_store, url, make_study):
    make_store()
    with pytest.raises(StoreError, match=r"another study named 'bowl' .of /studies/bowl.; rename"):
        TrialQueue.create(url, make_study(), folder="/studies/other")


def test_study_with_changed_sections_is_refused(make_store, url, make_study):
    make_store()
    other = make_study(params={"x": {"float": [-3.0, 4.0]}})
    with pytest.raises(StoreError, match=r"rename this one.*optuna delete-study --study-name bowl --storage"):
        TrialQueue.create(url, other, folder="/studies/bowl")


def test_study_reopens_with_other_budget(make_store, url, make_study):
    make_store()
    same = make_study(params={"x": {"float": [-3, 3]}}, budget={"trials": 9})
    assert len(TrialQueue.create(url, same, folder="/studies/bowl").rows()) == 9


def test_storage_without_study_is_refused(make_store, url, make_study):
    make_store()
    with pytest.raises(StoreError, match="has no study 'cup'"):
        TrialQueue.open(url, make_study(name="cup"))


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


def test_readers_open_while_writer_works(make_store, url, make_study):
    store = make_store()
    claim = store.claim(worker())
    reader = TrialQueue.open(url, make_study(), read_only=True)
    assert reader.rows()[0].state == "running"
    finish(store, claim)
    assert reader.rows()[0].state == "finished"


def test_sqlite_reader_ignores_write_lock(make_study, tmp_path):
    import sqlite3

    url = f"sqlite:///{tmp_path}/s.db"
    TrialQueue.create(url, make_study(), folder="f")
    holder = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    code = (
        "import sys; from pathlib import Path; from hpotune.storage import TrialQueue; "
        "from hpotune.config.load import load_study; "
        "print(len(TrialQueue.open(sys.argv[1], load_study(Path(sys.argv[2])), read_only=True).rows()))"
    )
    command = [sys.executable, "-c", code, url, str(make_study().source.path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    holder.close()
    assert answer.stdout.strip() == "6"


def test_opening_missing_storage_creates_none(make_study, tmp_path):
    with pytest.raises(StoreError, match="is not there"):
        TrialQueue.open(f"sqlite:///{tmp_path}/s.db", make_study())
    assert not (tmp_path / "s.db").exists()


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


def test_worker_without_time_waits(make_store):
    store = make_store(budget={"trials": 500}, search={"algorithm": "random"})
    assert store.claim(worker(), fits=lambda row: False) == Wait(why="time")


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


def test_slow_requeue_keeps_next_workers_trial(make_store):
    store = make_store(budget={"trials": 1})
    store.claim(worker("one"))
    set_attr = store._storage._inner.set_trial_user_attr
    again = []

    def interrupted(trial_id, key, value):
        set_attr(trial_id, key, value)
        if (
            key == "worker" and value is None and not again
        ):  # the other sweep ends, and somebody takes the trial
            again.append(True)
            store._storage.set_trial_state_values(trial_id, optuna.trial.TrialState.WAITING)
            assert store.claim(worker("two")).row.number == 0

    store._storage._inner.set_trial_user_attr = interrupted
    store.requeue_stale(lambda _: CRASHED, read_output=nothing_left)
    assert (store.rows()[0].state, store.rows()[0].worker) == ("running", worker("two"))
