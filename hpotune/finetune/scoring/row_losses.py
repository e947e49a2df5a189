"""The losses of a trial's model on its own rows, and the metrics of its labels."""

from __future__ import annotations

import numpy as np
import torch

from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.inputs import TrialInputs
from hpotune.finetune.progress_file import ProgressFile
from hpotune.finetune.scoring.label_metrics import label_metrics
from hpotune.finetune.training.loss import mean_loss
from hpotune.finetune.training.pass_limit import PassLimit
from hpotune.records.trial import TrialSpec

BASELINE_ROWS = 256  # of the training rows, for the train_loss of the base model


def row_losses(
    model: torch.nn.Module,
    inputs: TrialInputs,
    spec: TrialSpec,
    limit: PassLimit,
    ranks: Ranks,
    progress: ProgressFile,
) -> dict[str, Value]:
    """eval_loss, and the metrics of a classification; for a baseline also those of a training of 0 steps."""
    metrics: dict[str, Value] = {}
    if not spec.point.trains:
        return {"steps": 0, "trainable_parameters": 0}
    if spec.kind == "baseline":
        first = inputs.train[:BASELINE_ROWS]
        loss = mean_loss(
            model, first, pad_id=inputs.pad_id, limit=limit, ranks=ranks, progress=progress.count
        ).loss
        metrics |= {"train_loss": loss, "final_train_loss": loss, "steps": 0, "trainable_parameters": 0}
    if inputs.validation:
        outputs: list[list[float]] | None = None if inputs.labels is None else []
        held_out = mean_loss(
            model,
            inputs.validation,
            pad_id=inputs.pad_id,
            limit=limit,
            ranks=ranks,
            progress=progress.count,
            outputs=outputs,
        )
        metrics["eval_loss"] = held_out.loss
        if outputs is not None:
            if inputs.validation[0].number is None:
                metrics["eval_accuracy"] = held_out.accuracy
            metrics |= label_metrics(inputs.validation, np.array(outputs))
    return metrics
