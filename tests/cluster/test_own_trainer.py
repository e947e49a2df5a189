"""A user's own transformers script with three added lines, on Slurm: ASHA, kill -9, an unbroken run's numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpotune.cli.inspect import read_trials
from tests.conftest import needs_torch
from tests.fixtures.cluster_studies import RESOURCES, ended, hpotune, wait
from tests.fixtures.tiny_model import tiny_model

pytestmark = pytest.mark.slurm

# The three lines are marked; what the test adds to the script is in Steps: a file of trained steps, and one pause.
SCRIPT = """\
import json, os, sys, time

from transformers import (
    AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments,
)

import hpotune

params = hpotune.params({"learning_rate": float(sys.argv[1])})  # 1


class Steps(TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        with open(os.environ.get("HPOTUNE_TRIAL_DIR", ".") + "/steps.txt", "a") as file:
            file.write(f"{state.global_step}\\n")
        if MARK and state.global_step == 5:
            try:
                os.symlink(str(os.getpid()), MARK)
                time.sleep(600)
            except FileExistsError:
                pass


tokenizer = AutoTokenizer.from_pretrained(MODEL)
rows = [dict(tokenizer(f"the {n} drum and whale {n * n}", max_length=12, truncation=True)) for n in range(40)]
arguments = TrainingArguments(
    output_dir="out", max_steps=9, per_device_train_batch_size=4, learning_rate=params["learning_rate"],
    save_steps=2, eval_strategy="steps", eval_steps=3, seed=3, use_cpu=True, report_to=[], disable_tqdm=True,
)
trainer = Trainer(
    model=AutoModelForCausalLM.from_pretrained(MODEL), args=arguments, train_dataset=rows[:32], eval_dataset=rows[32:],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    callbacks=[Steps(), hpotune.TrainerCallback()],  # 2
)
trainer.train(resume_from_checkpoint=hpotune.last_checkpoint())  # 3
print(json.dumps(trainer.evaluate()))
"""
STUDY = """\
name: own
command: {python} train.py 0
params: {{learning_rate: {{float: [1.0e-4, 1.0e-2], log: true}}}}
score: {{objective: {{metric: eval_loss}}, collect: {{kind: push}}}}
search: {{algorithm: asha, seed: 1, rungs: {{unit: steps, at: [3, 9]}}}}
budget: {{trials: 3, parallel: 1}}
{resources}
"""


def test_own_script_continues_after_kill(slurm_cluster: Path, tmp_path: Path) -> None:
    needs_torch()
    model, mark = tiny_model(tmp_path / "model", hidden=16, layers=1), tmp_path / "mark"
    (tmp_path / "train.py").write_text(f"MARK, MODEL = {str(mark)!r}, {str(model)!r}\n{SCRIPT}")
    file = tmp_path / "own.yaml"
    file.write_text(STUDY.format(python=sys.executable, resources=RESOURCES))
    hpotune("submit", file)
    wait(file, lambda status: mark.is_symlink())
    os.kill(int(os.readlink(mark)), signal.SIGKILL)
    wait(file, ended)

    folder, _, rows = read_trials(file, None)
    assert [row.state for row in rows].count("stopped") == 2
    [best] = [row for row in rows if row.state == "finished"]
    assert [attempt.cause for attempt in best.attempts if attempt.cause] == ["killed"]
    for row in rows:
        steps = [int(line) for line in (folder.trial(row.number) / "steps.txt").read_text().split()]
        killed = [4, 5, *range(5, 10)]  # the last checkpoint before the kill is that of step 4
        assert steps == [1, 2, 3, *(killed if row is best else [])]

    command = [sys.executable, str(tmp_path / "train.py"), repr(best.params["params.learning_rate"])]
    unbroken = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(unbroken.splitlines()[-1])["eval_loss"] == best.values[0]
