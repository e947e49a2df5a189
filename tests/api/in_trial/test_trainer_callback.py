"""`hpotune.TrainerCallback` in transformers' Trainer: rungs, kills and the end of a job against an unbroken run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hpotune
from hpotune.api.in_trial.trial_process import this_trial
from hpotune.workspace.trial_reports import read_reports, surviving, was_paused
from tests.conftest import needs_torch
from tests.fixtures.tiny_model import tiny_model

if TYPE_CHECKING:
    from transformers import Trainer

STEPS = 8


class Killed(BaseException):
    """The process is killed."""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_torch()
    return tiny_model(tmp_path_factory.mktemp("model"), hidden=16, layers=1)


@pytest.fixture
def train(model_folder, tmp_path):
    """Trains to the end, or as far as the trial of this process goes; killed at the start of step `killed`."""
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    rows = [
        dict(tokenizer(f"the {n} drum and whale {n * n}", max_length=12, truncation=True)) for n in range(28)
    ]

    class Counted(TrainerCallback):
        def __init__(self, killed: int | None, warned: int | None) -> None:
            self.killed, self.warned, self.steps = killed, warned, []

        def on_step_begin(self, args, state, control, **others):
            if state.global_step == self.killed:
                raise Killed
            this_trial().signal.came = this_trial().signal.came or state.global_step == self.warned
            self.steps.append(state.global_step)

    def trained(killed: int | None = None, warned: int | None = None, **options) -> tuple[Trainer, list[int]]:
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"), max_steps=STEPS, per_device_train_batch_size=4, learning_rate=1e-2,
            logging_steps=1, save_steps=3, eval_steps=3, seed=3, use_cpu=True, report_to=[], disable_tqdm=True,
            **{"eval_strategy": "steps", **options},
        )  # fmt: skip
        counted = Counted(killed, warned)
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(model_folder), args=arguments, train_dataset=rows[:20],
            eval_dataset=rows[20:], callbacks=[hpotune.TrainerCallback(), counted],
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        )  # fmt: skip
        with suppress(Killed):
            trainer.train(resume_from_checkpoint=hpotune.last_checkpoint())
        return trainer, counted.steps

    return trained


def losses(folder: Path, attempt: str) -> dict[int, dict[str, float]]:
    """Step -> the losses that count, of a trial."""
    found: dict[int, dict[str, float]] = {}
    for one in surviving(read_reports(folder), attempt=attempt):
        values = {k: v for k, v in one.values.items() if k in ("loss", "eval_loss")}
        if values and one.step is not None:
            found.setdefault(one.step, {}).update(values)
    return found


def test_rungs_and_kills_change_nothing(as_trial, train, tmp_path, monkeypatch):
    rungs = {"RUNG_UNIT": "steps"}
    as_trial("a", **rungs, RUNG_BUDGET="4")
    assert train(killed=3)[1] == [0, 1, 2]
    as_trial("b", **rungs, RUNG_BUDGET="4")  # from the checkpoint of step 3 to the rung
    assert train()[1] == [3]
    as_trial(
        "c", **rungs, RUNG_BUDGET="4"
    )  # as after a kill between the checkpoint and the record of the rung
    trainer, steps = train()
    assert (trainer.state.global_step, steps) == (4, [])
    assert losses(tmp_path, "c")[4].keys() == {"loss", "eval_loss"}
    as_trial("d", **rungs, RUNG_BUDGET="8")
    assert train(killed=7)[1] == [4, 5, 6]
    as_trial("e", **rungs, RUNG_BUDGET="8")
    trainer, steps = train()
    assert steps == [6, 7]
    broken, weights = losses(tmp_path, "e"), trainer.model.state_dict()
    assert not (tmp_path / "out" / "checkpoint-3").exists()

    whole = tmp_path / "whole"
    whole.mkdir()
    as_trial("w", TRIAL_DIR=str(whole))
    trainer, steps = train()
    assert steps == list(range(STEPS))
    assert set(broken) == set(range(1, STEPS + 1))
    unbroken = losses(whole, "w")
    assert {step: one["loss"] for step, one in broken.items()} == {
        s: one["loss"] for s, one in unbroken.items()
    }
    assert broken[6] == unbroken[6]
    assert all((weights[name] == value).all() for name, value in trainer.model.state_dict().items())


def test_end_of_the_job_saves(as_trial, train, tmp_path):
    as_trial("a")
    trainer, steps = train(warned=1, eval_strategy="no")
    assert (steps, trainer.state.global_step, was_paused(tmp_path)) == ([0, 1], 2, True)
    assert hpotune.last_checkpoint() == tmp_path / "checkpoint" / "checkpoint-2"


def test_outside_nothing_changes(train, tmp_path, monkeypatch):
    monkeypatch.delenv("HPOTUNE_TRIAL_DIR", raising=False)
    this_trial.cache_clear()
    trainer, steps = train()
    assert (steps, trainer.args.output_dir) == (list(range(STEPS)), str(tmp_path / "out"))
    assert not list(tmp_path.rglob("reports.jsonl"))
