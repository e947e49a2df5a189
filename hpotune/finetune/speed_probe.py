"""`python -m hpotune.finetune.speed_probe SPEC.json`: how fast a trial's model trains with so many threads.

Prints `ready` when the model, its adapter and the rows are in memory. Then each line of its input, `THREADS SECONDS`,
is answered by a line of JSON, {"tokens": N, "seconds": S}: micro-batches of the trial, for about that long. Only CPUs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from hpotune.finetune.model import hub
from hpotune.finetune.trial_imports import import_training
from hpotune.records.trial import TrialSpec


def main(file: Path) -> int:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    spec = TrialSpec.model_validate_json(file.read_text())
    hub.prepare_environment(offline=spec.offline, fetched=spec.fetched)
    import_training()
    import torch

    step = _steps(spec)
    print("ready", file=answers)
    for line in sys.stdin:
        threads, seconds = line.split()
        torch.set_num_threads(int(threads))
        print(json.dumps(_measured(step, float(seconds))), file=answers)
    return 0


def _measured(step: Callable[[], int], seconds: float) -> dict[str, float]:
    """The tokens of some micro-batches, the first of which is not counted, and the time that they took."""
    step()
    began, tokens, passed = time.monotonic(), 0, 0.0
    while passed < seconds:
        tokens += step()
        passed = time.monotonic() - began
    return {"tokens": tokens, "seconds": passed}


def _steps(spec: TrialSpec) -> Callable[[], int]:
    """A function that trains on the next micro-batch of the trial and returns its tokens."""
    import torch

    from hpotune.config.training_method import trains_whole
    from hpotune.finetune.data.batches import rank_micro_batches
    from hpotune.finetune.distributed.ranks import Ranks
    from hpotune.finetune.inputs import load_inputs
    from hpotune.finetune.model.adapter import attach_adapter, lora_config
    from hpotune.finetune.model.base_model import load_base
    from hpotune.finetune.training.optimizer import build_optimizer, step_plan, training_arguments
    from hpotune.finetune.training.training_loop import accumulate_gradients

    point, ranks = spec.point, Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    assert point.model is not None, "a fine-tuning trial has a model"
    train = {key: value for key, value in point.train.items() if value != "auto"}
    prepared = Path(spec.prepared) if spec.prepared is not None else None
    inputs = load_inputs(point.model, point.data, data_root=spec.data_root, prepared=prepared)
    base = load_base(
        point.model,
        labels=inputs.labels,
        pad_id=inputs.pad_id,
        device=ranks.device,
        seed=spec.seed,
        on_device=True,
        whole=trains_whole(train),
    )
    model: torch.nn.Module = base.module
    if trains_whole(train):
        model.requires_grad_(True)
    else:
        config = lora_config(point.lora, task=point.model.task, new_modules=base.new_modules)
        model = attach_adapter(base.module, config, seed=spec.seed, ranks=ranks)
    model.train()
    rows, args = inputs.train, training_arguments(train, seed=spec.seed, folder=Path(spec.folder))
    plan = step_plan(args, train, rows=len(rows), world_size=1)
    optimizer, _ = build_optimizer(args, model, momentum=None, steps=plan.steps)

    def micro_batches() -> Iterator[list[int]]:
        for number in count():
            yield from rank_micro_batches(
                plan.batches.rows_at(number), rank=0, world_size=1, micro_batch=plan.micro_batch
            )

    batches = micro_batches()

    def step() -> int:
        own = next(batches)
        accumulate_gradients(model, rows, [own], smoothing=0.0, pad_id=inputs.pad_id, ranks=ranks)
        optimizer.step()
        return sum(len(rows[index].ids) for index in own)

    return step


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
