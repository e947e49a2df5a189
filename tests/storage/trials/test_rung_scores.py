"""Rungs in the storage: who is promoted, what is recorded once, what killed workers leave; on each storage."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import optuna
import pytest

from hpotune.records.trial import Failure, TrialResult, TrialRow
from hpotune.storage import Claim, TrialOutput, TrialQueue
from hpotune.storage.backends.connect import connect
from hpotune.storage.readers.read_only import rows_of
from tests.fixtures.store_workers import alive, nothing_left, worker

ASHA = {"search": {"algorithm": "asha"}, "budget": {"trials": 9}}
DIED = Failure(cause="killed", message="its worker died")


def result(claim: Claim, *values: float, rung: int | None = None) -> TrialResult:
    at = claim.row.rung if rung is None else rung
    return TrialResult(number=claim.row.number, state="finished", values=list(values), rung=at)


def climb(store: TrialQueue, value, *, stages: int = 10**6) -> list[tuple[int, int]]:
    """The stages of one worker: (number, rung) of each."""
    taken = []
    while len(taken) < stages and isinstance(claim := store.claim(worker()), Claim):
        taken.append((claim.row.number, claim.row.rung))
        store.record_rung(claim.trial_id, result(claim, value(claim.row.number)), owner=worker())
    return taken


def test_one_worker_follows_the_ladder(make_store):
    store = make_store(**ASHA)
    taken = climb(store, float)  # trial 0 is the best
    assert taken == [
        (0, 0), (1, 0), (2, 0), (0, 1), (3, 0), (4, 0), (5, 0), (1, 1), (6, 0), (7, 0), (8, 0), (2, 1), (0, 2),
    ]  # fmt: skip
    rows = store.rows()
    assert Counter(row.state for row in rows) == {"finished": 1, "stopped": 8}
    assert [len(row.rung_scores) for row in rows] == [3, 2, 2, 1, 1, 1, 1, 1, 1]
    assert (rows[0].values, rows[1].values) == ((0.0,), (1.0,))
    assert [attempt.outcome for attempt in rows[0].attempts] == ["rung", "rung", "finished"]
    assert [attempt.rung for attempt in rows[0].attempts] == [0, 1, 2]


def test_restarts_do_not_change_promotions(make_store, url, make_study):
    straight = climb(make_store(**ASHA), float)
    study = make_study(**ASHA, name="again")
    TrialQueue.create(url, study, folder="/studies/again")
    broken = []
    while more := climb(TrialQueue.open(url, study), float, stages=2):
        broken += more
        claim = TrialQueue.open(url, study).claim(worker())
        if isinstance(claim, Claim):  # it dies in the middle of this one
            TrialQueue.open(url, study).requeue_stale(lambda row: DIED, read_output=nothing_left)
    assert broken == straight


def test_read_only_rows_have_rung_scores(make_store, url, make_study, monkeypatch):
    store = make_store(**ASHA)
    climb(store, float, stages=8)
    store.claim(worker("other"))
    expected = store.rows()
    assert {row.state for row in expected} == {"waiting", "running"}
    assert any(row.awaits_promotion for row in expected)
    study = make_study(**ASHA)

    def quickly() -> list[TrialRow]:
        with monkeypatch.context() as patch:
            patch.setattr(TrialQueue, "open", lambda *_, **__: pytest.fail("Optuna's way was gone"))
            return rows_of(url, study)

    assert quickly() == expected
    store.requeue_stale(lambda row: DIED, read_output=nothing_left)
    climb(store, float)
    expected = store.rows()
    assert {row.state for row in expected} == {"finished", "stopped"}
    assert quickly() == expected


def test_optuna_sees_intermediate_values_and_pruned(make_store, url):
    store = make_store(**ASHA)
    climb(store, float)
    study = optuna.load_study(study_name="bowl", storage=connect(url))
    assert study.trials[0].intermediate_values == {0: 0.0, 1: 0.0, 2: 0.0}
    assert study.best_trial.number == 0
    assert study.trials[8].state == optuna.trial.TrialState.PRUNED
    assert study.trials[8].values == [8.0]


def test_rung_is_recorded_once(make_store):
    store = make_store(**ASHA)
    claim = store.claim(worker())
    assert store.record_rung(claim.trial_id, result(claim, 1.0), owner=worker()) == "rung"
    assert store.record_rung(claim.trial_id, result(claim, 5.0), owner=worker()) == ""
    row = store.rows()[0]
    assert [one.values for one in row.rung_scores] == [(1.0,)]
    assert row.awaits_promotion
    assert not row.paused


def test_former_worker_cannot_record_rung(make_store):
    store = make_store(**ASHA)
    lost = store.claim(worker("one"))
    store.pause(lost.trial_id)
    assert store.claim(worker("two")).row.number == lost.row.number
    assert store.record_rung(lost.trial_id, result(lost, 1.0), owner=worker("one")) == ""
    assert store.rows()[0].rung_scores == ()


def test_stale_trial_continues_to_its_rung(make_store):
    store = make_store(**ASHA)
    climb(store, float, stages=3)
    before = store.claim(worker("one")).row
    assert (before.number, before.rung) == (0, 1)
    assert store.requeue_stale(lambda row: DIED, read_output=nothing_left) == [0]
    after = store.claim(worker("two")).row
    assert (after.number, after.rung, after.params) == (0, 1, before.params)
    assert [one.rung for one in after.rung_scores] == [0]


def test_stale_workers_rung_is_recorded(make_store):
    store = make_store(**ASHA)
    climb(store, float, stages=3)
    claim = store.claim(worker("one"))
    left = TrialOutput(result=result(claim, 0.5))
    store.requeue_stale(lambda row: DIED, read_output=lambda _: left)
    row = store.rows()[0]
    assert row.awaits_promotion
    assert [one.values for one in row.rung_scores] == [(0.0,), (0.5,)]
    assert [(a.outcome, a.ended_by_other) for a in row.attempts] == [("rung", False), ("rung", True)]


def test_result_of_previous_rung_is_ignored(make_store):
    store = make_store(**ASHA)
    climb(store, float, stages=3)
    claim = store.claim(worker("one"))
    left = TrialOutput(result=result(claim, 0.0, rung=0))
    store.requeue_stale(lambda row: DIED, read_output=lambda _: left)
    row = store.rows()[0]
    assert (row.rung, row.paused, len(row.rung_scores)) == (1, True, 1)
    assert [(a.outcome, a.cause) for a in row.attempts] == [("rung", None), ("paused", "killed")]


def test_unreleased_rung_score_is_completed(make_store, monkeypatch):
    store = make_store(**ASHA)
    claim = store.claim(worker("one"))
    monkeypatch.setattr(store._outcomes, "release", lambda *_: False)  # the worker is killed here
    store.record_rung(claim.trial_id, result(claim, 1.0), owner=worker("one"))
    monkeypatch.undo()
    assert store.rows()[0].state == "running"
    store.requeue_stale(lambda row: DIED, read_output=lambda _: TrialOutput(result=result(claim, 1.0)))
    row = store.rows()[0]
    assert row.awaits_promotion
    assert [one.values for one in row.rung_scores] == [(1.0,)]
    assert [a.outcome for a in row.attempts] == ["rung"]


def test_trial_promoted_meanwhile_is_released(make_store):
    store = make_store(**ASHA)
    climb(store, float, stages=3)
    seen = store._trials.all()[0]
    assert climb(store, float, stages=1) == [(0, 1)]
    assert not store._set_running(seen, worker())
    row = store.rows()[0]
    assert (row.awaits_promotion, row.rung) == (True, 1)


def test_failed_trial_keeps_rung_scores(make_store):
    store = make_store(**ASHA)
    climb(store, float, stages=3)
    claim = store.claim(worker())
    assert store.record_failure(claim.trial_id, Failure(cause="nan", message="x"), owner=worker()) == "failed"
    climb(store, float)
    rows = store.rows()
    assert Counter(row.state for row in rows) == {"failed": 1, "finished": 1, "stopped": 8}
    assert len(rows[0].rung_scores) == 1


def test_median_prunes_and_promotes_at_once(make_store):
    store = make_store(
        search={"algorithm": "random", "pruner": "median", "rungs": [0.5, 1]}, budget={"trials": 7}
    )
    values = [4.0, 3.0, 2.0, 1.0, 9.0, 0.5, 2.6]
    taken = climb(store, values.__getitem__)
    assert taken == [(n, rung) for n in range(4) for rung in (0, 1)] + [(4, 0), (5, 0), (5, 1), (6, 0)]
    states = [row.state for row in store.rows()]
    assert states == [*["finished"] * 4, "stopped", "finished", "stopped"]
    assert [a.outcome for a in store.rows()[4].attempts] == ["rung"]


def test_warmup_prevents_pruning(make_store):
    store = make_store(
        search={"algorithm": "random", "pruner": "median", "rungs": [0.5, 1]}, budget={"trials": 5}
    )
    climb(store, float, stages=8)
    claim = store.claim(worker())
    cold = result(claim, 9.0).model_copy(update={"metrics": {"steps": 10, "warmup_steps": 20}})
    assert store.record_rung(claim.trial_id, cold, owner=worker()) == "rung"


def test_significantly_worse_trial_is_pruned(make_store, make_study, url):
    search = {"algorithm": "random", "pruner": "median", "rungs": [0.5, 1]}
    store = make_store(search=search, budget={"trials": 6})
    wilcoxon = store.config.search.model_copy(update={"pruner": "wilcoxon"})
    store.config = store.config.model_copy(update={"search": wilcoxon})
    climb(store, float, stages=8)
    compared = []
    for number, worse in ((4, False), (5, True)):
        claim = store.claim(worker())
        asked = lambda *pair, worse=worse: compared.append(pair) or worse  # noqa: E731
        store.record_rung(claim.trial_id, result(claim, 9.0), owner=worker(), is_worse=asked)
        if not worse:
            claim = store.claim(worker())
            store.record_rung(claim.trial_id, result(claim, 9.0), owner=worker())
        assert compared[-1] == (number, 0, 0)
    assert [row.state for row in store.rows()] == [*["finished"] * 5, "stopped"]


def test_round_ignores_trials_awaiting_promotion(make_store):
    store = make_store(**ASHA | {"budget": {"trials": 9, "parallel": 3}}, execution={"mode": "batch"})
    first = [store.claim(worker(str(n))) for n in range(3)]
    assert store.claim(worker("x")).why == "round"
    for claim in first:
        store.record_rung(claim.trial_id, result(claim, claim.row.number), owner=claim.row.worker)
    then = [store.claim(worker(str(n))).row for n in range(4)]
    assert [(row.number, row.rung) for row in then] == [(0, 1), (3, 0), (4, 0), (5, 0)]


def test_awaiting_trials_allow_new_rows(make_store, monkeypatch):
    monkeypatch.setattr("hpotune.storage.trials.outcome_writer.AHEAD", 2)
    store = make_store(**ASHA)
    assert len(store.rows()) == 2
    assert len({number for number, _ in climb(store, float)}) == 9


def test_killed_workers_record_each_rung_once(url, make_study):
    study = make_study(search={"algorithm": "asha"}, budget={"trials": 18, "parallel": 4, "max_failed": 1000})
    store = TrialQueue.create(url, study, folder="/f")
    printed: list[str] = []
    for round_ in range(40):
        command = [sys.executable, "-m", "tests.storage.trials.rung_worker", url, str(study.source.path)]
        racers = [
            subprocess.Popen([*command, str(4 * round_ + index)], stdout=subprocess.PIPE, text=True)
            for index in range(4)
        ]
        for racer in racers:
            printed += racer.communicate(timeout=300)[0].splitlines()
        store.requeue_stale(
            lambda row: None if alive(row.worker) else DIED, read_output=nothing_left, unowned_s=0
        )
        if sum(row.decided for row in store.rows()) >= 18:
            break
    rows = store.rows()
    assert sum(row.decided for row in rows) == 18
    assert {row.state for row in rows} <= {"finished", "stopped", "failed"}
    recorded = [f"{row.number} {one.rung}" for row in rows for one in row.rung_scores]
    assert len(set(recorded)) == len(recorded)
    assert sorted(printed) == sorted(recorded)
    tried = {row.number: row.params["params.x"] ** 2 for row in rows if row.decided}
    assert next(row for row in rows if row.number == min(tried, key=tried.get)).state == "finished"
