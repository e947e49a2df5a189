"""Limits on measurements of finished trials: recorded for Optuna, kept as text, never the best trial."""

from __future__ import annotations

import math
import sys
from datetime import datetime

import optuna
import pytest
from optuna.study import StudyDirection

from hpotune.config.schema.study_config import Limit
from hpotune.records.trial import TrialResult
from hpotune.schedule.best_trials import best_trials
from hpotune.schedule.retention import adapters_to_delete
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.search.base.history import CONSTRAINTS_KEY, history_of
from hpotune.search.base.storage_view import SearchView
from hpotune.search.base.unit_cube import Cube
from hpotune.storage import Claim, TrialQueue
from hpotune.storage.backends.connect import connect
from hpotune.storage.readers.read_only import rows_of
from hpotune.storage.trials.score_limits import broken, excesses, limits_of
from tests.fixtures.store_workers import worker

LIMITS = [{"metric": "memory", "max": 40}, {"metric": "acc", "min": 0.5, "max": 0.9}]
LIMITED = {
    "objective": {"metric": "value", "direction": "minimize", "goal": -2},
    "constraints": [*LIMITS, {"metric": "seconds", "max": 3600}, {"metric": "value", "min": -5}],
}
RESULTS = [
    (-3.0, {"memory": 43.1, "acc": 0.6}),
    (-1.0, {"memory": 40, "acc": 0.9}),
    (-1.5, {"memory": 12.0}),
    (-9.0, {"memory": 12.0, "acc": 0.3}),
]


def limits() -> list[Limit]:
    return [Limit.model_validate(limit) for limit in LIMITS]


def played(store: TrialQueue) -> None:
    for value, metrics in RESULTS:
        claim = store.claim(worker())
        assert isinstance(claim, Claim)
        result = TrialResult(number=claim.row.number, state="finished", values=[value], metrics=metrics)
        assert store.complete(claim.trial_id, result)


@pytest.mark.parametrize(
    ("measured", "expected", "words"),
    [
        ({"memory": 40, "acc": 0.5}, [0, -0.4, 0], []),
        ({"memory": 43.125, "acc": 0.25}, [3.125, -0.65, 0.25], ["memory 43.125 > 40", "acc 0.25 < 0.5"]),
        ({"memory": math.nan, "acc": "high"}, [0, 0, 0], []),
        ({"memory": True}, [0, 0, 0], []),
        ({"memory": math.inf}, [sys.float_info.max, 0, 0], ["memory inf > 40"]),
        ({"acc": 1}, [0, 0.1, -0.5], ["acc 1 > 0.9"]),
    ],
    ids=["kept", "broken", "not a number", "truth", "infinite", "above"],
)
def test_excess_is_positive_for_broken_limits(measured, expected, words):
    assert excesses(limits(), measured) == pytest.approx(expected)  # of each limit max, then min
    assert broken(limits(), measured) == words


def test_finished_trial_stores_its_excesses(make_store, url):
    store = make_store(score=LIMITED)
    played(store)
    study = optuna.load_study(study_name="bowl", storage=connect(url))
    found = [trial.system_attrs.get(CONSTRAINTS_KEY) for trial in study.trials[:4]]
    assert [[excess > 0 for excess in excesses_] for excesses_ in found] == [
        [True, False, False, False, False],
        [False] * 5,
        [False] * 5,
        [False, False, True, False, True],
    ]
    assert [len(trial.constraints) for trial in study.trials[:4]] == [5] * 4  # Optuna's own reading
    breaks = [("memory 43.1 > 40",), (), (), ("acc 0.3 < 0.5", "value -9 < -5")]
    assert [row.breaks for row in store.rows()[:4]] == breaks
    assert [row.breaks for row in rows_of(url, store._trials.study)[:4]] == breaks


def test_best_trial_keeps_the_limits(make_store):
    store = make_store(score=LIMITED)
    played(store)
    rows, config = store.rows(), store.config
    assert [row.number for row in best_trials(config.score.objective, rows, None)] == [2]
    assert adapters_to_delete(config.score.objective, rows[:4], None, keep=2) == [0, 3]
    assert stop_reason(config, rows, now=datetime.now()) is None


def test_pareto_front_keeps_the_limits(make_store):
    objective = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "minimize"}]
    store = make_store(score={"objective": objective, "constraints": [{"metric": "b", "max": 2}]})
    for values in ([0.0, 3.0], [1.0, 2.0], [2.0, 1.0]):
        claim = store.claim(worker())
        assert isinstance(claim, Claim)
        store.complete(claim.trial_id, TrialResult(number=claim.row.number, state="finished", values=values))
    rows = store.rows()
    assert [row.number for row in best_trials(store.config.score.objective, rows, None)] == [1, 2]
    assert rows[0].breaks == ("b 3 > 2",)


def test_next_attempt_replaces_unrecorded_limits(make_store):
    store = make_store(score=LIMITED)
    claim = store.claim(worker())
    assert isinstance(claim, Claim)
    store._storage.set_trial_user_attr(claim.trial_id, "breaks", ["memory 99 > 40"])
    store.complete(
        claim.trial_id, TrialResult(number=0, state="finished", values=[0.0], metrics={"memory": 9})
    )
    assert store.rows()[0].breaks == ()


def test_no_limits_write_nothing(make_store, url):
    played(make_store())
    study = optuna.load_study(study_name="bowl", storage=connect(url))
    assert all(CONSTRAINTS_KEY not in trial.system_attrs for trial in study.trials)


def test_rungs_ignore_limits_on_scores(make_store):
    limits = [*LIMITED["constraints"], {"metric": "eval_loss", "max": 1}, {"metric": "arc/acc", "min": 0.5}]
    store = make_store(
        score={**LIMITED, "constraints": limits}, search={"pruner": "asha"}, budget={"trials": 6}
    )
    metrics = {"eval_loss": 2.0, "arc/acc": 0.1}
    seen = []
    for memory in (12.0, 43.0, 12.0, 12.0):
        claim = store.claim(worker())
        assert isinstance(claim, Claim)
        result = TrialResult(
            number=0,
            state="finished",
            values=[-9.0],
            metrics={"memory": memory, **metrics},
            rung=claim.row.rung,
        )
        store.record_rung(claim.trial_id, result)
        seen.append((claim.row.number, claim.row.rung, store.rows()[claim.row.number].breaks))
    assert seen[:3] == [(0, 0, ()), (1, 0, ("memory 43 > 40",)), (2, 0, ())]
    [study_id] = [one._study_id for one in store._storage.get_all_studies()]
    history = history_of(
        SearchView(store._storage).get_all_trials(study_id), Cube({}), StudyDirection.MINIMIZE
    )
    assert (len(history), len(history.failed)) == (2, 1)
    last = TrialResult(number=0, state="finished", values=[-9.0], metrics=metrics, rung=2)
    claim = next(row for row in store.rows() if row.rung_scores)
    id_ = store._storage.get_trial_id_from_study_id_trial_number(study_id, claim.number)
    whole = limits_of(store._storage.get_trial(id_), store.config, last, [])
    assert whole.breaks
    assert whole.user_attrs == {"breaks": ["value -9 < -5", "eval_loss 2 > 1", "arc/acc 0.1 < 0.5"]}


def test_limit_counts_all_attempts_time(make_store, monkeypatch):
    store = make_store(score={**LIMITED, "constraints": [{"metric": "seconds", "max": 1e-9}]})
    claim = store.claim(worker())
    assert isinstance(claim, Claim)
    store.complete(claim.trial_id, TrialResult(number=0, state="finished", values=[0.0]))
    (words,) = store.rows()[0].breaks
    assert words.startswith("seconds ")


def test_baseline_is_exempt_from_limits(make_store, url):
    store = make_store(score=LIMITED)
    claim = store.claim(worker())
    assert isinstance(claim, Claim)
    store._storage.set_trial_user_attr(claim.trial_id, "kind", "baseline")
    store.complete(
        claim.trial_id, TrialResult(number=0, state="finished", values=[0.0], metrics={"memory": 99})
    )
    assert store.rows()[0].breaks == ()
