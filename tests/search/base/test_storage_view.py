"""The cache of finished trials shows the same as a fresh view."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from hpotune.search.base.storage_view import FinishedTrials, SearchView

LINE = FloatDistribution(0.0, 1.0)


def grown(storage, id_: int, rng: random.Random, *, rungs: bool) -> None:
    """One event in a study: a trial is created, gets a point, a rung score, or a result."""
    trials = storage.get_all_trials(id_, deepcopy=False)
    live = [trial for trial in trials if not trial.state.is_finished()]
    if not live or rng.random() < 0.3:
        kind = "baseline" if not trials or rng.random() < 0.05 else "trial"
        made = create_trial(state=TrialState.WAITING, user_attrs={"kind": kind})
        storage.create_new_trial(id_, template_trial=made)
        return
    trial = rng.choice(live)
    if trial.state == TrialState.WAITING:
        storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        if trial.user_attrs["kind"] == "trial" and not trial.params:
            storage.set_trial_param(trial._trial_id, "x", rng.random(), LINE)
    elif rungs and rng.random() < 0.5:
        before = trial.user_attrs.get("rungs", [])
        score = {"rung": len(before), "budget": 1.0, "values": [rng.random()], "stderrs": []}
        storage.set_trial_user_attr(trial._trial_id, "rungs", [*before, score])
        storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    else:
        state = rng.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL])
        storage.set_trial_state_values(
            trial._trial_id, state, [rng.random()] if state == TrialState.COMPLETE else None
        )


def shown(view: SearchView, id_: int, states: tuple[TrialState, ...] | None) -> list[tuple]:
    return [
        (trial.number, trial.state, trial.values, trial.params, trial.user_attrs, trial.system_attrs)
        for trial in view.get_all_trials(id_, deepcopy=False, states=states)
    ]


@pytest.mark.parametrize("rungs", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_cached_view_equals_fresh_view(seed, rungs):
    rng, kept = random.Random(seed), FinishedTrials()
    study = optuna.create_study()
    storage, id_ = study._storage, study._study_id
    for _ in range(5):  # that lead, whatever climbs behind them
        trial = create_trial(state=TrialState.COMPLETE, value=rng.random(), user_attrs={"kind": "trial"})
        storage.create_new_trial(id_, template_trial=trial)
    for _ in range(300):
        grown(storage, id_, rng, rungs=rungs)
        count = len(study.get_trials(deepcopy=False))
        unseen = frozenset(range(rng.randrange(count + 1), count)) if rng.random() < 0.5 else frozenset()
        states = (TrialState.COMPLETE,) if rng.random() < 0.3 else None
        views = [SearchView(storage, unseen=unseen, finished=finished) for finished in (kept, None)]
        first, second = (shown(view, id_, states) for view in views)
        assert first == second
    assert kept.searched_count > 5 or rungs
    assert kept.searched_count >= 5
    points = [
        trial.params for trial in study.get_trials(deepcopy=False)[: kept.searched_count] if trial.params
    ]
    assert all(map(kept.has_point, points))
    assert not kept.has_point({"x": 2.0})


def test_unchanged_trials_keep_their_rows():
    """Thousands that wait between two rungs are looked at several times for each point."""
    storage = optuna.storages.InMemoryStorage()
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "s")
    for _ in range(3):
        storage.create_new_trial(study_id, create_trial(state=TrialState.WAITING))
    made = []

    def row_of(trial):
        made.append(trial.number)
        return (trial.number, trial.state, dict(trial.user_attrs))

    kept = FinishedTrials(row_of)  # type: ignore[arg-type]

    def look():
        return [kept.row(trial) for trial in storage.get_all_trials(study_id, deepcopy=False)]

    assert look() == look()
    assert made == [0, 1, 2]
    storage.set_trial_user_attr(1, "rung", 0)
    assert look()[1] == (1, TrialState.WAITING, {"rung": 0})
    storage.set_trial_state_values(1, TrialState.RUNNING)
    storage.set_trial_state_values(1, TrialState.COMPLETE, [1.0])
    assert look()[1][1] == TrialState.COMPLETE
    assert look() == look()
    assert made == [0, 1, 2, 1, 1]
