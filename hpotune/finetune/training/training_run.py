"""The steps of one trial with its optimizer, checkpoints and measurements: for an adapter and for a whole model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
import transformers
from transformers.integrations.neftune import neftune_post_forward_hook

from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model import adapter
from hpotune.finetune.output import TrialOutput
from hpotune.finetune.training import checkpoint
from hpotune.finetune.training.checkpoint import Progress, TrainingState
from hpotune.finetune.training.compiled import compiled_layers, is_compiled
from hpotune.finetune.training.live_memory import PeakMemory
from hpotune.finetune.training.loss import Row, row_lengths
from hpotune.finetune.training.memory_choice import MemoryChoice, record_peak
from hpotune.finetune.training.optimizer import (
    StepPlan,
    build_optimizer,
    plan_to_rung,
    step_plan,
    training_arguments,
)
from hpotune.finetune.training.packing import check_isolation, reads_flat
from hpotune.finetune.training.training_loop import LoopCallbacks, train
from hpotune.records.trial import TrialSpec

FINAL_SHARE = 0.1  # last share of the steps, over which final_train_loss is the mean


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """What a training needs besides the model."""

    rows: Sequence[Row]
    spec: TrialSpec
    labels: Sequence[str] | None
    """The names of the classes, saved with what is trained; None for a language model."""
    pad_id: int
    ranks: Ranks
    output: TrialOutput
    stop_requested: Callable[[], bool]
    memory: MemoryChoice | None = None
    """What `auto` values stand for; None: there is none."""

    @property
    def args(self) -> transformers.TrainingArguments:
        """The `train` section as transformers reads it, with what `auto` stands for."""
        return training_arguments(self._chosen, seed=self.spec.seed, folder=Path(self.spec.folder))

    @property
    def _chosen(self) -> dict[str, Value]:
        train = self.spec.point.train
        return dict(train) if self.memory is None else self.memory.applied(train)

    def train(self, model: torch.nn.Module, base: torch.nn.Module, *, whole: bool) -> None:
        """Train from the checkpoint, if there is one, to the end of the stage; the measurements go to the output.

        `base`: the base model inside of `model`. `whole`: as TrainingState.whole. Optimizer and checkpoint state are
        released at the return.
        Raises: NotFinite, UserError; Paused after a signal.
        """
        spec, output, ranks = self.spec, self.output, self.ranks
        folder, args = Path(spec.folder) / "checkpoint", self.args
        every = step_plan(args, self._chosen, rows=len(self.rows), world_size=ranks.world_size)
        plan = plan_to_rung(every, spec.rung)
        if self._chosen.get("packing"):
            with output.phase("check"):
                check_isolation(model, self.rows, pad_id=self.pad_id, ranks=ranks)
            longest = max(row_lengths(self.rows))
            plan = replace(plan, pack_tokens=longest, pack_flat=reads_flat(base))
        enable_training_options(base, args)
        momentum = cast("float | None", spec.point.train.get("sgd_momentum"))
        ratio = cast("float | None", spec.point.train.get("loraplus_lr_ratio"))
        optimizer, scheduler = build_optimizer(
            args,
            model,
            momentum=momentum,
            steps=plan.steps,
            b_ratio=ratio,
            sharded=whole and ranks.world_size > 1,
        )
        state = TrainingState(model=model, optimizer=optimizer, scheduler=scheduler, whole=whole)
        batch = plan.batches.global_batch
        fingerprint = checkpoint.training_fingerprint(spec, global_batch=batch)
        lineage = checkpoint.lineage_fingerprint(spec, global_batch=batch)
        progress = checkpoint.resume(
            folder, state, fingerprint=fingerprint, parent=spec.parent, lineage=lineage, ranks=ranks
        )
        output.truncate_curve(progress.step)
        output.earlier_process_s = progress.process_seconds

        def save() -> None:
            progress.process_seconds = output.earlier_process_s + output.clock() - output.started
            with output.phase("checkpoint"):
                checkpoint.save_checkpoint(
                    folder, state, progress, fingerprint=fingerprint, lineage=lineage, ranks=ranks
                )

        callbacks = LoopCallbacks(
            save=save,
            log=output.append_curve,
            stop_requested=self.stop_requested,
            progress=output.progress.count,
            halved=self._note_halved,
            # what follows the tensors of a step would keep torch from compiling it
            peak=None if self.memory is None or is_compiled(self._chosen) else PeakMemory(),
        )
        with output.phase("train"), compiled_layers(base, self._chosen):
            train(
                state,
                self.rows,
                progress,
                plan=plan,
                args=args,
                pad_id=self.pad_id,
                ranks=ranks,
                callbacks=callbacks,
            )
        if self.memory is not None and callbacks.peak is not None and callbacks.peak.bytes is not None:
            record_peak(spec, self.memory, callbacks.peak.bytes, ranks=ranks, output=output)
        output.metrics.update(_training_metrics(model, progress, plan))

    def _note_halved(self, rows: int) -> None:
        self.output.ran_out_of_memory = True
        self.output.metrics["micro_batch"] = rows
        self.output.add_warning(f"out of memory while training: from now on {rows} rows in a forward pass")


def enable_training_options(base: torch.nn.Module, args: transformers.TrainingArguments) -> None:
    """Enable gradient checkpointing and NEFTune noise in the base model if the point asks for them."""
    if args.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    if args.neftune_noise_alpha is not None:
        embeddings = base.get_input_embeddings()
        embeddings.neftune_noise_alpha = args.neftune_noise_alpha
        embeddings.register_forward_hook(neftune_post_forward_hook)


def _training_metrics(model: torch.nn.Module, progress: Progress, plan: StepPlan) -> dict[str, Value]:
    losses, seconds = progress.losses, max(progress.train_seconds, 1e-9)
    final = losses[-max(1, round(FINAL_SHARE * len(losses))) :]
    return {
        "train_loss": sum(losses) / len(losses),
        "final_train_loss": sum(final) / len(final),
        "steps": progress.step,
        **({} if plan.stage_end is None else {"warmup_steps": plan.warmup}),
        "global_batch_size": plan.batches.global_batch,
        "trainable_parameters": sum(p.numel() for p in adapter.trainable_parameters(model).values()),
        "train_seconds": seconds,
        "samples_per_second": progress.rows / seconds,
        "tokens_per_second": progress.tokens / seconds,
    }
