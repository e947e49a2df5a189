"""What a careful user writes without hpotune: Trainer, peft and lm_eval.simple_evaluate, searched by Optuna.

    python scripts/bench/peers/finetune_script.py SETTINGS.json             all trials in one process
    python scripts/bench/peers/finetune_script.py SETTINGS.json --trial 3   one trial, as an element of a job array

In one process the base model, the tokenized rows and lm-eval's task index are loaded once. Nothing of hpotune is
imported. Writes OUT/N.json for each trial: losses by step, scores. scripts/bench/trials.py writes the settings.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import lm_eval
import peft
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


class Trials:
    """What all trials of a process share, and one trial after another."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(settings["model"])
        self.base = transformers.AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
        self.base.config.use_cache = False
        self.rows = [self._row(**row) for row in settings["rows"]]
        self.tasks = TaskManager()

    def _row(self, instruction: str, response: str) -> dict[str, list[int]]:
        prompt = self.tokenizer(f"{instruction}\n")["input_ids"]
        ids = [*self.tokenizer(f"{instruction}\n{response}")["input_ids"], self.tokenizer.eos_token_id]
        return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}

    def run(self, number: int) -> float:
        """Train and score one trial; returns its score."""
        rate = self.settings["rates"][number]
        folder = Path(self.settings["out"], str(number))
        torch.manual_seed(self.settings["seed"])
        model = peft.get_peft_model(
            self.base, peft.LoraConfig(task_type="CAUSAL_LM", **self.settings["lora"])
        )
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), use_cpu=not torch.cuda.is_available(), report_to="none", save_strategy="no",
            disable_tqdm=True, remove_unused_columns=False, seed=self.settings["seed"], learning_rate=rate,
            num_train_epochs=1, per_device_train_batch_size=self.settings["batch"], logging_steps=1,
        )  # fmt: skip
        collator = transformers.DataCollatorForSeq2Seq(self.tokenizer, padding=True)
        trainer = _InOrder(model, arguments, train_dataset=self.rows, data_collator=collator)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        model.save_pretrained(folder / "adapter")
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model.eval(), tokenizer=self.tokenizer, batch_size=16),
            tasks=[self.settings["task"]], limit=self.settings["items"], task_manager=self.tasks,
        )["results"][self.settings["task"]]  # fmt: skip
        scores = {name.split(",")[0]: value for name, value in found.items() if name.startswith("acc")}
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        result = {"learning_rate": rate, "losses": losses, "acc_norm": scores["acc_norm"]}
        Path(self.settings["out"], f"{number}.json").write_text(json.dumps(result))
        self.base = model.unload()
        return float(scores["acc_norm"])


class _InOrder(transformers.Trainer):
    """The Trainer with rows in the order of the settings, so that losses can be compared."""

    def _get_train_sampler(self, *_: object) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", type=Path)
    parser.add_argument("--trial", type=int)
    args = parser.parse_args()
    trials = Trials(json.loads(args.settings.read_text()))
    if args.trial is not None:
        trials.run(args.trial)
        return
    import optuna

    numbers = list(range(len(trials.settings["rates"])))
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.GridSampler({"number": numbers})
    )
    study.optimize(
        lambda trial: trials.run(trial.suggest_categorical("number", numbers)), n_trials=len(numbers)
    )


if __name__ == "__main__":
    main()
