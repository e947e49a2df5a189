"""Making and opening the Optuna study of a store; on each storage."""

from __future__ import annotations

import optuna
import pytest

from hpotune.errors import StoreError
from hpotune.storage import TrialQueue
from hpotune.storage.backends.connect import connect
from tests.fixtures.store_workers import (
    finish,
    worker,
)


def test_study_is_ordinary_optuna_study(make_store, url):
    store = make_store(params={"x": {"float": [-3.0, 3.0]}, "deep": {"k": {"int": [1, 4]}}})
    finish(store, store.claim(worker()), 0.5)
    loaded = optuna.load_study(study_name="bowl", storage=connect(url))
    assert loaded.best_value == 0.5
    assert loaded.best_params.keys() == {"params.x", "params.deep.k"}
    assert loaded.best_trial.user_attrs["kind"] == "trial"
    assert loaded.metric_names == ["value"]


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


def test_opening_missing_storage_creates_none(make_study, tmp_path):
    with pytest.raises(
        StoreError, match="the study's store is missing; put it back, or remove the study's folder"
    ):
        TrialQueue.open(f"sqlite:///{tmp_path}/s.db", make_study())
    assert not (tmp_path / "s.db").exists()
