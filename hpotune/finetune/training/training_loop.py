"""The training loop of one trial.

The gradient of a step is that of the mean loss over the counted tokens of the whole global batch, so it does
not depend on how many ranks share it or on the micro-batch. Apart from the adapter and the optimizer's state, a
step is a function of (seed, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers

from hpotune.finetune.data.batches import share
from hpotune.finetune.distributed.fsdp import reduce
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.adapter import trainable
from hpotune.finetune.training.checkpoint import Learner, Progress
from hpotune.finetune.training.loss import Row, autocast, collate, forward, summed
from hpotune.finetune.training.optimizer import Plan
from hpotune.finetune.trial_errors import NotFinite, Paused

SAVE_EVERY_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of curve.jsonl."""

    step: int
    loss: float
    """Mean over the steps since the line before."""
    lr: float
    tokens: int
    seconds: float
    """Spent training, from the first step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Doors:
    """What the loop reaches outside: all of it is called on every rank at the same step."""

    save: Callable[[], None]
    log: Callable[[Line], None]
    stop: Callable[[], bool]
    """True when a signal came to this process."""


def train(
    learner: Learner,
    rows: Sequence[Row],
    progress: Progress,
    *,
    plan: Plan,
    args: transformers.TrainingArguments,
    pad_id: int,
    ranks: Ranks,
    doors: Doors,
) -> None:
    """Trains to the plan's end; `progress` follows. Ends with a checkpoint.

    Raises: NotFinite where the loss or the gradient diverges; Paused after a checkpoint where a signal came.
    """
    learner.model.train()
    saved_at = time.monotonic()
    began = saved_at - progress.train_seconds
    while progress.step < plan.end:
        lr = learner.scheduler.get_last_lr()[0]
        due = plan.save_every is None and ranks.first_one and time.monotonic() - saved_at > SAVE_EVERY_S
        wishes = [float(doors.stop()), float(due)]
        loss, tokens, stop, save = _step(
            learner, rows, progress.step, wishes, plan=plan, args=args, pad_id=pad_id, ranks=ranks
        )
        _count(progress, loss, tokens, plan=plan)
        progress.train_seconds = time.monotonic() - began
        last = progress.step == plan.end
        if last or progress.step % plan.log_every == 0:
            doors.log(_line(progress, lr=lr, every=plan.log_every))
        if last or stop or save or (plan.save_every and progress.step % plan.save_every == 0):
            doors.save()
            saved_at = time.monotonic()
        if stop:
            raise Paused
    learner.model.eval()


def _count(progress: Progress, loss: float, tokens: float, *, plan: Plan) -> None:
    """Adds a step to the progress.

    Raises: NotFinite.
    """
    progress.step += 1
    if not math.isfinite(loss):
        raise NotFinite(
            f"the loss is {loss} at step {progress.step} of {plan.steps}; lower train.learning_rate"
        )
    progress.losses.append(loss)
    progress.rows += len(plan.batches.at(progress.step - 1))
    progress.tokens += int(tokens)


def _step(
    learner: Learner,
    rows: Sequence[Row],
    step: int,
    wishes: Sequence[float],
    *,
    plan: Plan,
    args: transformers.TrainingArguments,
    pad_id: int,
    ranks: Ranks,
) -> tuple[float, float, float, float]:
    """One step (numbered from 0); returns (mean loss, tokens, stop, save), the last two the ranks' summed wishes."""
    batch = plan.batches.at(step)
    micro = share(batch, rank=ranks.rank, world_size=ranks.world_size, micro_batch=plan.micro_batch)
    torch.manual_seed(_seed(args.seed, step, ranks.rank))  # of dropout
    smoothing = args.label_smoothing_factor
    tail = accumulate(learner.model, rows, micro, smoothing=smoothing, pad_id=pad_id, ranks=ranks)
    return update(learner, [*tail, *wishes], max_norm=args.max_grad_norm, ranks=ranks)


def _line(progress: Progress, *, lr: float, every: int) -> Line:
    """The line after the step that was just made; where it starts does not depend on a resumption."""
    recent = progress.losses[(progress.step - 1) // every * every :]
    return Line(
        step=progress.step,
        loss=sum(recent) / len(recent),
        lr=lr,
        tokens=progress.tokens,
        seconds=progress.train_seconds,
    )


def accumulate(
    model: torch.nn.Module,
    rows: Sequence[Row],
    micro: Sequence[Sequence[int]],
    *,
    smoothing: float,
    pad_id: int,
    ranks: Ranks,
) -> list[float]:
    """[sum of losses, counted tokens, tokens] of this rank's micro-batches; leaves that sum's gradients."""
    model.zero_grad()
    loss_sum, counted, tokens = 0.0, 0, 0
    for indices in micro:
        chosen = [rows[index] for index in indices] or [rows[0]]
        batch = collate(chosen, pad_id=pad_id, device=ranks.device, blank=not indices)
        with autocast(model, ranks.device):
            logits_NV, targets_N = forward(model, batch)
            loss = summed(logits_NV, targets_N, smoothing=smoothing)
        loss.backward()
        loss_sum += loss.item()
        counted += len(targets_N)
        tokens += sum(len(rows[index].ids) for index in indices)
    return [loss_sum, counted, tokens]


def update(
    learner: Learner, tail: Sequence[float], *, max_norm: float, ranks: Ranks
) -> tuple[float, float, float, float]:
    """One optimizer step; returns (mean loss, tokens, stop, save) over all ranks.

    Sums are reduced and divided afterwards: losses of float16 keep a scale at which gradients do not vanish.
    Raises: NotFinite where the gradient's norm is not finite.
    """
    parameters = list(trainable(learner.model).values())
    total = reduce(parameters, torch.tensor(tail, dtype=torch.float64), ranks).tolist()
    loss, counted, tokens, stop, save = total
    for parameter in parameters:
        parameter.grad.div_(counted)
    if max_norm > 0:
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        if not norm.isfinite():
            raise NotFinite(f"the gradient's norm is {float(norm)}; lower train.learning_rate")
    learner.optimizer.step()
    learner.scheduler.step()
    return loss / counted, tokens, stop, save


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
