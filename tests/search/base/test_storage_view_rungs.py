"""Samplers see rung scores at one level; every algorithm works with rungs."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpotune.config.schema.rungs import ALGORITHMS, LINEAGES
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialResult, Worker
from hpotune.search.algorithms.registry import MODULES, check_algorithm
from hpotune.search.base.history import history_of
from hpotune.search.base.storage_view import SearchView, trials_at_level
from hpotune.search.base.unit_cube import Cube
from hpotune.search.sampler_setup import sampler_setup
from hpotune.storage import Claim, TrialQueue

LINE = {"x": FloatDistribution(0.0, 1.0)}
CUBE = Cube(LINE)


def trial(number: int, *values: float, state: TrialState = TrialState.WAITING) -> FrozenTrial:
    """A trial with one rung score for each value."""
    scores = [{"rung": k, "budget": 1.0, "values": [v], "stderrs": [0.1 * k]} for k, v in enumerate(values)]
    end = values[-1] if values else 0.5
    made = create_trial(
        state=state,
        params={"x": number / 100},
        distributions=LINE,
        values=[end] if state == TrialState.COMPLETE else None,
        user_attrs={"kind": "trial", "rungs": scores} if scores else {"kind": "trial"},
    )
    made.number = number
    return made


def history(*trials: FrozenTrial):
    return history_of(trials_at_level(trials), CUBE, StudyDirection.MAXIMIZE)


def test_without_rungs_nothing_is_changed():
    trials = [trial(0, state=TrialState.COMPLETE), trial(1, state=TrialState.RUNNING), trial(2)]
    assert trials_at_level(trials) == trials


def test_waiting_rung_scores_are_shown():
    found = history(*(trial(n, float(n)) for n in range(5)))
    assert found.gains.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(found.pending) == 0


def test_level_is_highest_sufficient_rung():
    low = [trial(n, float(n)) for n in range(9)]
    high = [trial(10 + n, 5.0 + n, 50.0 + n) for n in range(4)]
    found = history(*low, *high)
    assert found.gains.tolist() == [50.0, 51.0, 52.0, 53.0]
    assert found.stderrs.tolist() == [0.1] * 4
    assert len(found.pending) == 9
    fewer = history(*low, *high[:3])
    assert sorted(fewer.gains.tolist()) == sorted([*map(float, range(9)), 5.0, 6.0, 7.0])


def test_finished_trial_shown_at_level():
    done = trial(0, 1.0, 2.0, 99.0, state=TrialState.COMPLETE)
    found = history(done, *(trial(n, float(n)) for n in range(1, 9)))
    assert found.gains.tolist() == [1.0, *map(float, range(1, 9))]


def test_promoted_trial_keeps_rung_score():
    found = history(trial(0, 7.0, state=TrialState.RUNNING), *(trial(n, float(n)) for n in range(1, 5)))
    assert found.gains.tolist() == [7.0, 1.0, 2.0, 3.0, 4.0]


def test_trial_without_rungs_is_unchanged():
    found = history(trial(0, state=TrialState.COMPLETE), *(trial(n, float(n)) for n in range(1, 5)))
    assert found.gains.tolist() == [0.5, 1.0, 2.0, 3.0, 4.0]


def test_unseen_trials_hide_rung_scores():
    study = optuna.create_study(direction="maximize")
    for number in range(5):
        study._storage.create_new_trial(study._study_id, template_trial=trial(number, float(number)))
    view = SearchView(study._storage, unseen=frozenset({3, 4}))
    shown = view.get_all_trials(study._study_id)
    assert [one.state.name for one in shown] == [*["COMPLETE"] * 3, *["RUNNING"] * 2]
    assert view.get_all_trials(study._study_id, states=(TrialState.RUNNING,)) == shown[3:]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in LINEAGES])
def test_points_are_new_with_rungs(make_study, tmp_path, name):
    study = make_study(
        params={"x": {"float": [0.0, 1.0], "step": 0.05}, "y": {"float": [0.0, 1.0], "step": 0.05}},
        search={"algorithm": name} if name in ALGORITHMS else {"algorithm": name, "pruner": "asha"},
        budget={"trials": 12, "parallel": 3},
    )
    try:
        check_algorithm(study, sampler_setup(study, study.config))
    except StudyFileError as error:
        pytest.skip(str(error))
    store = TrialQueue.create(f"sqlite:///{tmp_path}/store", study, folder="/s")
    busy: list[Claim] = []
    while True:
        claim = store.claim(Worker(job="local", host="h", pid=1)) if len(busy) < 3 else None
        if isinstance(claim, Claim):
            busy.append(claim)
            continue
        if not busy:
            break
        done = busy.pop(0)
        point = done.row.params
        value = (point["params.x"] - 0.3) ** 2 + point["params.y"] + 0.1 / (1 + done.row.rung)
        store.record_rung(
            done.trial_id, TrialResult(number=0, state="finished", values=[value], rung=done.row.rung)
        )
    rows = store.rows()
    assert sum(row.decided for row in rows) == len(rows) == 12
    assert len({tuple(row.params.values()) for row in rows}) == 12
