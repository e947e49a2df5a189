"""Every argument of train() changes what docs/katib.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.load import load_study
from tests.fixtures.katib_rows import value_at
from tests.fixtures.katib_train_rows import TRAIN, training


@pytest.mark.parametrize("row", TRAIN)
def test_argument_has_its_effect(row: str, tmp_path: Path) -> None:
    TRAIN[row](tmp_path)


def test_training_is_study_of_one_trial(tmp_path: Path) -> None:
    study = load_study(training(tmp_path).path)
    assert study.config.budget.trials == 1
    assert not study.config.has_baseline
    assert not study.space.ranges
    assert value_at(study, "score.objective.0.metric") == "train_loss"
    assert value_at(study, "data.validation") == 0
