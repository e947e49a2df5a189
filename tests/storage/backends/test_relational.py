"""Trials read without Optuna's ORM and written together are what Optuna reads and writes itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from math import inf, nan

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState, create_trial

from hpotune.errors import StoreError
from hpotune.search.base import trial_update
from hpotune.search.base.trial_update import TrialUpdate, create_waiting, write_update
from hpotune.storage.backends.connect import connect
from hpotune.storage.backends.frozen_trials import MAX_LISTED

SPACE = {
    "rate": FloatDistribution(1e-6, 1e-2, log=True),
    "r": IntDistribution(2, 256),
    "optimizer": CategoricalDistribution(["adamw", None, True, 1.5]),
}
POINT = {"rate": 1e-3, "r": 8, "optimizer": True}
WORKER = {"job": "7_1", "host": "n1", "pid": 4}


def made(url: str):
    """A storage of hpotune's with an empty study of two objectives."""
    storage = connect(url)
    return storage, storage.create_new_study([optuna.study.StudyDirection.MINIMIZE] * 2, "many")


def plain(url: str, study_id: int):
    """The trials as Optuna reads them by itself."""
    if url.startswith("journal"):
        backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:///"))
        return optuna.storages.JournalStorage(backend).get_all_trials(study_id)
    optuna_url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return optuna.storages.RDBStorage(optuna_url).get_all_trials(study_id)


def fill(storage, study_id: int) -> None:
    """A trial in each state, with every kind of entry."""
    ended = {"params": POINT, "distributions": SPACE}
    for trial in (
        create_trial(state=TrialState.COMPLETE, values=[inf, 0.5], **ended),
        create_trial(
            state=TrialState.COMPLETE, values=[-inf, 1e-300], **ended, user_attrs={"a": {"b": [1, "ü"]}}
        ),
        create_trial(
            state=TrialState.PRUNED, values=[1.0, 2.0], **ended, intermediate_values={0: inf, 7: -2.5}
        ),
        create_trial(state=TrialState.FAIL, **ended, system_attrs={"s": None}),
        create_trial(state=TrialState.RUNNING, user_attrs={"worker": WORKER}),
        create_trial(state=TrialState.WAITING),
    ):
        storage.create_new_trial(study_id, template_trial=trial)


def test_trials_are_read_as_optuna_does(url):
    storage, study_id = made(url)
    fill(storage, study_id)
    fresh = connect(url)
    assert fresh.get_all_trials(study_id, deepcopy=False) == plain(url, study_id)
    assert list(fresh.get_all_trials(study_id, deepcopy=False)[0].params) == list(POINT)
    assert [fresh.get_trial(t._trial_id) for t in plain(url, study_id)] == plain(url, study_id)
    nothing = storage.create_new_trial(study_id)
    write_update(storage, nothing, TrialUpdate(intermediate_values={3: nan}))
    assert str(fresh.get_all_trials(study_id, deepcopy=False)[-1].intermediate_values) == "{3: nan}"


def test_update_writes_as_optuna_does(url):
    """Written at once and call by call: the same trials, but for the times."""
    storage, study_id = made(url)
    params = {name: (d.to_internal_repr(POINT[name]), d) for name, d in SPACE.items()}
    updates = [
        TrialUpdate(state=TrialState.RUNNING, user_attrs={"worker": WORKER}),
        TrialUpdate(params=params, system_attrs={"announced": POINT}, intermediate_values={0: 1.0, 1: inf}),
        TrialUpdate(user_attrs={"worker": None, "metrics": {"loss": 0.1}}),
        TrialUpdate(user_attrs={"attempts": [1]}, state=TrialState.COMPLETE, values=[0.5, -inf]),
    ]
    create_waiting(storage, study_id, [{"kind": "baseline"}, {"kind": "trial"}])
    first, second = storage.get_all_trials(study_id, deepcopy=False)
    for made_before in updates:
        update = replace(made_before, at=datetime.now())
        assert write_update(storage, first._trial_id, update)
        assert trial_update._write_each(storage, second._trial_id, update)
    one, other = (
        {k: v for k, v in vars(t).items() if "datetime" not in k and k not in ("_number", "_trial_id")}
        for t in plain(url, study_id)
    )
    assert one.pop("_user_attrs") == other.pop("_user_attrs") | {"kind": "baseline"}
    assert one == other
    assert all(t.datetime_start <= t.datetime_complete for t in plain(url, study_id))
    assert storage.get_all_trials(study_id, deepcopy=False) == plain(url, study_id)


def test_ended_trial_keeps_its_entries(url):
    """The whole update is refused, and the storage can be used after that."""
    storage, study_id = made(url)
    fill(storage, study_id)
    before = plain(url, study_id)
    late = TrialUpdate(user_attrs={"a": 1, "b": 2}, state=TrialState.COMPLETE, values=[0.0, 0.0])
    for trial in before[:4]:
        with pytest.raises(UpdateFinishedTrialError):
            write_update(storage, trial._trial_id, late)
        assert storage.get_all_trials(study_id, deepcopy=False) == before
    with pytest.raises(KeyError):
        write_update(storage, 10**6, late)
    assert storage.get_all_trials(study_id, deepcopy=False) == plain(url, study_id) == before


def test_other_process_changes_are_seen(url):
    """Whatever another storage does to a trial that this one keeps: claimed and released between two looks, too."""
    storage, study_id = made(url)
    create_waiting(storage, study_id, [{"kind": "trial"}] * 3)
    look = [t.state.name for t in storage.get_all_trials(study_id, deepcopy=False)]
    assert look == ["WAITING"] * 3
    other = connect(url)
    ids = [t._trial_id for t in other.get_all_trials(study_id, deepcopy=False)]
    steps = [
        TrialUpdate(state=TrialState.RUNNING),
        TrialUpdate(user_attrs={"rung": 0}),
        TrialUpdate(state=TrialState.WAITING),
    ]
    for update in steps:
        write_update(other, ids[1], update)
    assert storage.get_all_trials(study_id, deepcopy=False)[1].user_attrs == {"kind": "trial", "rung": 0}
    for state in (TrialState.RUNNING, TrialState.COMPLETE):
        write_update(
            other, ids[1], TrialUpdate(state=state, values=[1.0, 1.0] if state.is_finished() else None)
        )
        assert storage.get_all_trials(study_id, deepcopy=False) == plain(url, study_id)
    create_waiting(other, study_id, [{"kind": "trial"}] * 2)
    storage.create_new_trial(study_id)  # made by this process, ahead of what it has read
    assert storage.get_all_trials(study_id, deepcopy=False) == plain(url, study_id)
    assert [t.number for t in storage.get_all_trials(study_id, deepcopy=False)] == list(range(6))


def test_own_change_of_waiting_trial_seen(url):
    storage, study_id = made(url)
    create_waiting(storage, study_id, [{"kind": "trial"}])
    (trial,) = storage.get_all_trials(study_id, deepcopy=False)
    write_update(storage, trial._trial_id, TrialUpdate(system_attrs={"fixed_params": POINT}))
    assert storage.get_all_trials(study_id, deepcopy=False)[0].system_attrs == {"fixed_params": POINT}


def test_running_is_granted_once(url):
    """To the first that asks; and to the same call once more, where its answer was lost (a repeated claim)."""
    storage, study_id = made(url)
    create_waiting(storage, study_id, [{"kind": "trial"}])
    (trial,) = storage.get_all_trials(study_id, deepcopy=False)
    mine = TrialUpdate(state=TrialState.RUNNING, user_attrs={"worker": WORKER})
    assert write_update(storage, trial._trial_id, mine)
    other = TrialUpdate(state=TrialState.RUNNING, user_attrs={"worker": WORKER | {"pid": 5}})
    assert not write_update(connect(url), trial._trial_id, other)
    assert storage.get_trial(trial._trial_id).user_attrs["worker"] == WORKER
    if not url.startswith("journal"):
        assert write_update(storage, trial._trial_id, mine)
        assert not write_update(
            storage, trial._trial_id, TrialUpdate(state=mine.state, user_attrs=mine.user_attrs)
        )


def test_unfit_distribution_is_refused(url):
    storage, study_id = made(url)
    fill(storage, study_id)
    running = storage.get_all_trials(study_id, deepcopy=False)[4]._trial_id
    for opened in (storage, connect(url)):
        with pytest.raises(ValueError, match="distribution"):
            write_update(opened, running, TrialUpdate(params={"r": (0.5, FloatDistribution(0, 1))}))
        assert opened.get_trial(running).params == {}


def test_missing_study_is_a_key_error(url):
    storage, study_id = made(url)
    for call in (
        lambda: storage.get_all_trials(study_id + 1, deepcopy=False),
        lambda: storage.get_study_user_attrs(study_id + 1),
        lambda: create_waiting(storage, study_id + 1, [{}]),
        lambda: storage.get_trial(5),
    ):
        with pytest.raises(KeyError):
            call()


def test_many_trials_are_read_alike(url):
    """More than are named one by one in a query."""
    storage, study_id = made(url)
    create_waiting(storage, study_id, [{"kind": "trial", "n": n} for n in range(MAX_LISTED + 5)])
    for opened in (storage, connect(url)):
        found = opened.get_all_trials(study_id, deepcopy=False)
        assert [t.user_attrs["n"] for t in found] == list(range(MAX_LISTED + 5))
        write_update(opened, found[-1]._trial_id, TrialUpdate(user_attrs={"seen": True}))
        assert opened.get_all_trials(study_id, deepcopy=False)[-1].user_attrs["seen"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trial_user_attributes SET value_json = '1, 2'",
        "UPDATE trial_user_attributes SET value_json = NULL",
        "UPDATE trial_params SET distribution_json = '{}'",
        "UPDATE trial_params SET param_value = 'x' WHERE param_name = 'r'",
        "UPDATE trials SET state = 'ASLEEP'",
        "UPDATE trials SET datetime_start = 'noon' WHERE datetime_start IS NOT NULL",
        "UPDATE trial_values SET objective = 'first' WHERE objective = 0 AND trial_id = 1",
        "DROP TABLE trial_params",
    ],
)
def test_damaged_entry_is_a_store_error(tmp_path, damage):
    storage, study_id = made(f"sqlite:///{tmp_path}/store.db")
    fill(storage, study_id)
    with closing(sqlite3.connect(tmp_path / "store.db")) as database, database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute(damage)
    opened = connect(f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(StoreError) as error:
        opened.get_all_trials(study_id, deepcopy=False)
    assert f"{tmp_path}/store.db" in str(error.value)
    assert "\n" not in str(error.value)
