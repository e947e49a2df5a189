"""Our training beside transformers' Trainer with peft: the same losses, learning rates and adapter, setting by setting.

Both get the same rows in the same order (ours), and the same noise: the generator is seeded as ours before each step.
The models are float64, but transformers computes its loss in float32, whence the tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from hpotune.finetune.data.batches import Batches
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.adapter import attach_adapter, copy_adapter, lora_config
from hpotune.finetune.training.checkpoint import Progress, TrainingState
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.training.optimizer import build_optimizer, step_plan, training_arguments
from hpotune.finetune.training.training_loop import CurvePoint, LoopCallbacks, _step_seed, train
from hpotune.finetune.training.training_run import enable_training_options
from tests.fixtures.tiny_model import tiny_model

TOLERANCE = 2e-6
"""Of losses in nats and of weights: float32 has 1.2e-7, and a run has a dozen steps."""
SEED, ROWS, PAD = 7, 10, 0
CAUSAL = {
    "learning_rate": 5e-3,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "max_grad_norm": 0.0,
}
ACCUMULATED = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
COSINE = {"lr_scheduler_type": "cosine", "warmup_steps": 0.3, "lr_scheduler_kwargs": {"num_cycles": 0.7}}
POLYNOMIAL = {"lr_scheduler_type": "polynomial", "warmup_steps": 2, "lr_scheduler_kwargs": {"power": 2.0}}
SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"train": {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6}},
    "weight decay": {"train": {"weight_decay": 0.3, "learning_rate": 2e-2}},
    "momentum": {"train": {"optim": "sgd", "sgd_momentum": 0.9, "learning_rate": 0.05, "weight_decay": 0.1}},
    "nesterov": {"train": {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true", "learning_rate": 0.05}},
    "adafactor": {"train": {"optim": "adafactor"}},
    "rmsprop": {"train": {"optim": "rmsprop", "optim_args": "alpha=0.9", "learning_rate": 1e-3}},
    "cosine": {"train": COSINE},
    "polynomial": {"train": POLYNOMIAL},
    "constant": {"train": {"lr_scheduler_type": "constant"}},
    "accumulation": {"train": ACCUMULATED},
    "drop last": {"train": {"dataloader_drop_last": True}},
    "clipping": {"train": {"max_grad_norm": 0.05, **ACCUMULATED}},
    "smoothing": {"train": {"label_smoothing_factor": 0.1, **ACCUMULATED}},
    "neftune": {"train": {"neftune_noise_alpha": 5.0}},
    "dropout": {"lora": {"lora_dropout": 0.2}, "train": ACCUMULATED},
    "rslora": {"lora": {"use_rslora": True, "r": 8}},
    "dora": {"lora": {"use_dora": True}},
    "patterns": {"lora": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}}},
    "all linear": {"lora": {"target_modules": "all-linear", "bias": "lora_only"}},
    # without accumulation, in which the Trainer adds the means of a classifier's micro-batches
    "classes": {"task": "sequence_classification", "train": {"weight_decay": 0.1}},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A causal model and a classifier, by task."""
    folder, size = tmp_path_factory.mktemp("models"), {"hidden": 32, "layers": 2, "dtype": "float64"}
    return {
        "causal_lm": tiny_model(folder / "causal", **size),
        "sequence_classification": tiny_model(folder / "classes", num_labels=4, **size),
    }


def base(models: dict[str, Path], task: str) -> transformers.PreTrainedModel:
    kind = {
        "causal_lm": transformers.AutoModelForCausalLM,
        "sequence_classification": transformers.AutoModelForSequenceClassification,
    }[task]
    model = kind.from_pretrained(models[task], dtype=torch.float64)
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


def some_rows(task: str) -> list[Row]:
    """Rows of different lengths; of a language model the first third of each is a prompt, which the loss leaves out."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(ROWS):
        ids = rng.integers(3, 300, size=rng.integers(6, 24)).tolist()
        answer = [IGNORED] * (len(ids) // 3) + ids[len(ids) // 3 :]
        rows.append(Row(ids=ids, targets=[int(rng.integers(4))] if task != "causal_lm" else answer))
    return rows


def ours(
    model: torch.nn.Module, rows: list[Row], train_section: dict, lora: dict, task: str, folder: Path
) -> tuple[list[CurvePoint], dict[str, torch.Tensor]]:
    """The curve and the trained adapter of our loop."""
    ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    args = training_arguments(train_section, seed=SEED, folder=folder)
    plan = step_plan(args, train_section, rows=len(rows), world_size=1)
    adapted = attach_adapter(model, lora_config(lora, task=task), seed=SEED, ranks=ranks)
    enable_training_options(adapted.get_base_model(), args)
    momentum = train_section.get("sgd_momentum")
    optimizer, scheduler = build_optimizer(args, adapted, momentum=momentum, steps=plan.steps)
    curve: list[CurvePoint] = []
    train(
        TrainingState(model=adapted, optimizer=optimizer, scheduler=scheduler), rows, Progress(),
        plan=plan, args=args, pad_id=PAD, ranks=ranks,
        callbacks=LoopCallbacks(save=lambda: None, log=curve.append, stop_requested=lambda: False),
    )  # fmt: skip
    return curve, copy_adapter(adapted)


class OurOrder(torch.utils.data.Sampler[int]):
    """The rows of one epoch after another, as batches.py orders them, those of a step by their length.

    drop_last is the Trainer's own.
    """

    def __init__(self, batches: Batches, lengths: list[int]) -> None:
        self.batches, self.lengths, self.epoch = batches, lengths, 0

    def __len__(self) -> int:
        return self.batches.rows

    def __iter__(self) -> Iterator[int]:
        whole = Batches(rows=self.batches.rows, global_batch=self.batches.rows, seed=self.batches.seed)
        order, size = whole.rows_at(self.epoch), self.batches.global_batch
        for start in range(0, len(order), size):
            yield from sorted(order[start : start + size], key=self.lengths.__getitem__)
        self.epoch += 1


class Oracle(transformers.Trainer):
    """The Trainer with our order of rows and our noise."""

    def __init__(self, *args: Any, batches: Batches, **options: Any) -> None:
        super().__init__(*args, **options)
        self.order, self.seeded_step = OurOrder(batches, [len(row.ids) for row in self.train_dataset]), -1
        self.rates: list[float] = []

    def _get_train_sampler(self, *_: Any) -> OurOrder:
        return self.order

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        if self.state.global_step != self.seeded_step:  # the first micro-batch of a step
            self.seeded_step = self.state.global_step
            self.rates.append(self.lr_scheduler.get_last_lr()[0])
            torch.manual_seed(_step_seed(SEED, self.seeded_step, 0))
        return super().training_step(*args, **options)


def padded(rows: list[Row]) -> dict[str, torch.Tensor]:
    """The Trainer's collator: padding on the right."""
    length = max(len(row.ids) for row in rows)

    def batch(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([line + [filler] * (length - len(line)) for line in values])

    labels = [row.targets for row in rows]
    classes = len(labels[0]) == 1
    return {
        "input_ids": batch([row.ids for row in rows], PAD),
        "attention_mask": batch([[1] * len(row.ids) for row in rows], 0),
        "labels": torch.tensor([one for [one] in labels]) if classes else batch(labels, IGNORED),
    }


def oracle(
    model: torch.nn.Module, rows: list[Row], train_section: dict, lora: dict, task: str, folder: Path
) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Losses by step, learning rates by step, and the trained adapter of the Trainer."""
    momentum = train_section.pop("sgd_momentum", None)
    section = {"optim_args": f"momentum={momentum}", **train_section} if momentum else train_section
    args = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", seed=SEED, logging_steps=1, save_strategy="no",
        disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False, **section,
    )  # fmt: skip
    kind = {"causal_lm": "CAUSAL_LM", "sequence_classification": "SEQ_CLS"}[task]
    torch.manual_seed(SEED)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type=kind, **lora))
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
    trainer = Oracle(
        adapted, args, train_dataset=rows, data_collator=padded,
        batches=Batches(rows=len(rows), global_batch=batch, seed=SEED),
    )  # fmt: skip
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return losses, trainer.rates, copy_adapter(adapted)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_training_equals_trainer(setting: dict, models: dict[str, Path], tmp_path: Path) -> None:
    task = setting.get("task", "causal_lm")
    section = CAUSAL | setting.get("train", {})
    lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **setting.get("lora", {})}
    given = (some_rows(task), dict(section), lora, task, tmp_path)
    curve, adapter = ours(base(models, task), *given)
    losses, rates, wanted = oracle(base(models, task), *given)
    assert [point.lr for point in curve] == rates
    assert [point.loss for point in curve] == pytest.approx(losses, abs=TOLERANCE)
    assert adapter.keys() == wanted.keys()
    assert max(float((adapter[name] - wanted[name]).abs().max()) for name in wanted) < TOLERANCE
    assert all(
        float(weight.abs().max()) > 1000 * TOLERANCE for name, weight in adapter.items() if "lora_B" in name
    )
