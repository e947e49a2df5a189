"""The setting of a trial: its defaults are the libraries' own, and each value that nobody reads is noted."""

from __future__ import annotations

from dataclasses import replace

import peft
import pytest
import transformers

from hpotune.errors import StudyFileError
from hpotune.exchange.trial_setting import DEFAULTS, trial_setting
from hpotune.records.lineage import Lineage
from tests.exchange.conftest import Tuned


def test_defaults_are_those_of_training() -> None:
    args = transformers.TrainingArguments(output_dir="unused", use_cpu=True)
    lora = peft.LoraConfig()
    for name, value in DEFAULTS.items():
        section, key = name.split(".")
        if section == "train":
            theirs = getattr(args, key)
            assert getattr(theirs, "value", theirs) == value, name
        elif section == "lora" and key != "target_modules":  # hpotune's own default is all-linear
            assert getattr(lora, key) == value, name


def test_batch_is_the_trials(tuned: Tuned) -> None:
    setting = trial_setting(tuned.study, tuned.rows[0], prepared="")
    assert (setting.steps, setting.warmup, setting.global_batch, setting.ranks) == (12, 2, 8, 1)
    assert setting.batch() == (3, 3)
    assert "is no multiple of a forward pass of 3 rows; a step has 9 rows" in setting.notes[0]


def test_unread_values_are_noted(tuned: Tuned) -> None:
    setting = trial_setting(tuned.study, tuned.rows[0], prepared="")
    setting.value("train.learning_rate")
    setting.leave_out("sometool")
    assert "train.weight_decay=0.01: sometool has no key for it" in setting.notes
    assert not any("learning_rate" in note for note in setting.notes)


def test_continued_trial_is_refused(tuned: Tuned) -> None:
    row = replace(tuned.rows[0], lineage=Lineage(generation=1, generations=2, parent=5))
    with pytest.raises(StudyFileError, match="continues from trial 5's checkpoint"):
        trial_setting(tuned.study, row, prepared="")


def test_chosen_values_stand_for_auto(tuned: Tuned) -> None:
    values = {**tuned.study.source.values}
    values["train"] = {
        **values["train"],
        "per_device_train_batch_size": "auto",
        "activation_checkpointing": "auto",
    }
    study = replace(tuned.study, source=replace(tuned.study.source, values=values))
    metrics = {**tuned.rows[0].metrics, "micro_batch": 2, "activation_checkpointing": True}
    setting = trial_setting(study, replace(tuned.rows[0], metrics=metrics), prepared="")
    assert setting.micro_batch == 2
    assert setting.value("train.gradient_checkpointing") is True
