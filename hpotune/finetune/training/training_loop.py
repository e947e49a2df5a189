"""The training loop of one trial.

The gradient of a step is that of the mean loss over the counted tokens of the whole global batch, so it does not depend
on the number of ranks or on the micro-batch size. Apart from the adapter and the optimizer's state, a step is a
function of (seed, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
import transformers

from hpotune.finetune.data.batches import rank_micro_batches
from hpotune.finetune.distributed.fsdp import all_reduce_gradients, whole_tensor
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.adapter import trainable_parameters
from hpotune.finetune.training.checkpoint import Progress, TrainingState
from hpotune.finetune.training.live_memory import PeakMemory, measured_peak
from hpotune.finetune.training.loss import Batch, Row, autocast, collate, training_loss
from hpotune.finetune.training.optimizer import StepPlan
from hpotune.finetune.training.packing import collate_packed, flat, rank_passes
from hpotune.finetune.training.pass_limit import without_out_of_memory
from hpotune.finetune.trial_errors import NotFinite, Paused

SAVE_EVERY_S = 600.0
MEASURED_STEPS = 2
"""Steps whose peak memory is measured: the first makes the optimizer's state, the second has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One line of curve.jsonl."""

    step: int
    loss: float
    """Mean over the steps since the previous line."""
    lr: float
    tokens: int
    seconds: float
    """Training time since the first step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopCallbacks:
    """What the loop calls outside of itself; every rank calls each of them at the same step."""

    save: Callable[[], None]
    log: Callable[[CurvePoint], None]
    stop_requested: Callable[[], bool]
    """True after a signal to this process."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with the number of steps that are done, and that of all."""
    halved: Callable[[int], None] = lambda rows: None
    """Called with the smaller micro-batch after a pass that ran out of memory."""
    peak: PeakMemory | None = None
    """Gets the peak memory of the first steps; None: it is not measured."""


def train(
    state: TrainingState,
    rows: Sequence[Row],
    progress: Progress,
    *,
    plan: StepPlan,
    args: transformers.TrainingArguments,
    pad_id: int,
    ranks: Ranks,
    callbacks: LoopCallbacks,
) -> None:
    """Train up to the plan's last step, updating `progress`, and save a checkpoint at the end.

    Raises: NotFinite if the loss or the gradient diverges; Paused after a signal, with a checkpoint.
    """
    state.model.train()
    with ExitStack() as measuring:
        if callbacks.peak is not None and progress.step < plan.last_step:
            kept = [*state.model.parameters(), *state.model.buffers(), *_optimizer_state(state.optimizer)]
            measuring.enter_context(measured_peak(kept, ranks.device, callbacks.peak))
        _train(
            state,
            rows,
            progress,
            measuring,
            plan=plan,
            args=args,
            pad_id=pad_id,
            ranks=ranks,
            callbacks=callbacks,
        )
    state.model.eval()


def _train(
    state: TrainingState,
    rows: Sequence[Row],
    progress: Progress,
    measuring: ExitStack,
    *,
    plan: StepPlan,
    args: transformers.TrainingArguments,
    pad_id: int,
    ranks: Ranks,
    callbacks: LoopCallbacks,
) -> None:
    """The steps of `train`; `measuring` is closed after MEASURED_STEPS of them."""
    first = progress.step
    saved_at = time.monotonic()
    started = saved_at - progress.train_seconds
    callbacks.progress(progress.step, plan.last_step)
    while progress.step < plan.last_step:
        lr = state.scheduler.get_last_lr()[0]
        save_due = plan.save_every is None and ranks.is_main and time.monotonic() - saved_at > SAVE_EVERY_S
        flags = [float(callbacks.stop_requested()), float(save_due)]
        (loss, tokens, stop, save), micro_batch = _train_step(
            state, rows, progress.step, flags, plan=plan, args=args, pad_id=pad_id, ranks=ranks
        )
        if micro_batch < plan.micro_batch:
            callbacks.halved(micro_batch)
            plan = replace(plan, micro_batch=micro_batch)
        _record_step(progress, loss, tokens, plan=plan)
        progress.train_seconds = time.monotonic() - started
        callbacks.progress(progress.step, plan.last_step)
        if progress.step - first == MEASURED_STEPS:
            measuring.close()
        last = progress.step == plan.last_step
        if last or progress.step % plan.log_every == 0:
            callbacks.log(_curve_point(progress, lr=lr, every=plan.log_every))
        if last or stop or save or (plan.save_every and progress.step % plan.save_every == 0):
            callbacks.save()
            saved_at = time.monotonic()
        if stop:
            raise Paused


def _optimizer_state(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """The tensors of an optimizer's state."""
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _record_step(progress: Progress, loss: float, tokens: float, *, plan: StepPlan) -> None:
    """Add a step to the progress.

    Raises: NotFinite.
    """
    progress.step += 1
    if not math.isfinite(loss):
        raise NotFinite(
            f"the loss is {loss} at step {progress.step} of {plan.steps}; lower train.learning_rate"
        )
    progress.losses.append(loss)
    progress.rows += len(plan.batches.rows_at(progress.step - 1))
    progress.tokens += int(tokens)


def _train_step(
    state: TrainingState,
    rows: Sequence[Row],
    step: int,
    flags: Sequence[float],
    *,
    plan: StepPlan,
    args: transformers.TrainingArguments,
    pad_id: int,
    ranks: Ranks,
) -> tuple[tuple[float, float, float, float], int]:
    """Make one step (numbered from 0) and return (mean loss, tokens, stop, save), and the micro-batch that fitted.

    A pass that runs out of memory is repeated with half of the rows, which gives the same sums without dropout.
    The last two are the ranks' flags, summed in the all-reduce of the gradients: so all ranks stop and save at the same
    step without a collective of its own.
    """
    # rows of a length share a micro-batch, so that less is padded; the sum over the step's rows is the same
    batch = sorted(plan.batches.rows_at(step), key=lambda index: len(rows[index].ids))
    micro_batch, sums = plan.micro_batch, None

    def all_passes() -> torch.Tensor:
        torch.manual_seed(_step_seed(args.seed, step, ranks.rank))  # for dropout
        smoothing = args.label_smoothing_factor
        if plan.pack_tokens is not None:
            batches = _packed_batches(
                rows,
                batch,
                micro_batch=micro_batch,
                capacity=plan.pack_tokens,
                one_sequence=plan.pack_flat,
                pad_id=pad_id,
                ranks=ranks,
            )
            return _summed_gradients(
                state.model, batches, smoothing=smoothing, ranks=ranks, chunked=plan.chunked_loss
            )
        return accumulate_gradients(
            state.model,
            rows,
            rank_micro_batches(batch, rank=ranks.rank, world_size=ranks.world_size, micro_batch=micro_batch),
            smoothing=smoothing,
            pad_id=pad_id,
            ranks=ranks,
            chunked=plan.chunked_loss,
        )

    while sums is None:
        # not with several ranks: the others wait in the collectives of this rank's pass
        sums = without_out_of_memory(all_passes, may_retry=micro_batch > 1 and ranks.world_size == 1)
        if sums is None:
            micro_batch = min(micro_batch, len(batch)) // 2 or 1
    total = torch.cat([sums, torch.tensor(flags, dtype=sums.dtype).to(sums)])
    return update_weights(state, total, max_norm=args.max_grad_norm, ranks=ranks), micro_batch


def _curve_point(progress: Progress, *, lr: float, every: int) -> CurvePoint:
    """The line after the step just made; the steps that it covers do not depend on where the training was resumed."""
    recent = progress.losses[(progress.step - 1) // every * every :]
    return CurvePoint(
        step=progress.step,
        loss=sum(recent) / len(recent),
        lr=lr,
        tokens=progress.tokens,
        seconds=progress.train_seconds,
    )


def accumulate_gradients(
    model: torch.nn.Module,
    rows: Sequence[Row],
    micro_batches: Sequence[Sequence[int]],
    *,
    smoothing: float,
    pad_id: int,
    ranks: Ranks,
    chunked: bool = True,
) -> torch.Tensor:
    """Compute the gradients of this rank's summed loss and return [summed loss, counted tokens, tokens], float64."""

    def batches() -> Iterator[tuple[Batch, int]]:
        for indices in micro_batches:
            chosen = [rows[index] for index in indices] or [rows[0]]
            batch = collate(chosen, pad_id=pad_id, device=ranks.device, ignore_all=not indices)
            yield batch, sum(len(rows[index].ids) for index in indices)

    return _summed_gradients(model, batches(), smoothing=smoothing, ranks=ranks, chunked=chunked)


def _packed_batches(
    rows: Sequence[Row],
    batch: Sequence[int],
    *,
    micro_batch: int,
    capacity: int,
    pad_id: int,
    ranks: Ranks,
    one_sequence: bool = False,
) -> Iterator[tuple[Batch, int]]:
    """The passes of this rank's rows in sequences of at most `capacity` tokens, and the tokens of each.

    `one_sequence`: the sequences of a pass follow each other in one, without padding.
    """
    lengths = {index: len(rows[index].ids) for index in batch}
    passes = rank_passes(
        batch,
        lengths,
        rank=ranks.rank,
        world_size=ranks.world_size,
        micro_batch=micro_batch,
        capacity=capacity,
    )
    for packed in map(flat, passes) if one_sequence else passes:
        chosen = [[rows[index] for index in indices] for indices in packed] or [[rows[0]]]
        made = collate_packed(chosen, pad_id=pad_id, device=ranks.device, ignore_all=not packed)
        yield made, sum(lengths[index] for indices in packed for index in indices)


def _summed_gradients(
    model: torch.nn.Module,
    batches: Iterable[tuple[Batch, int]],
    *,
    smoothing: float,
    ranks: Ranks,
    chunked: bool = True,
) -> torch.Tensor:
    """As `accumulate_gradients`, of batches with their numbers of tokens.

    Nothing waits for the device here: a GPU works on one micro-batch while the next is put together.
    """
    model.zero_grad()
    loss_sum = torch.zeros((), dtype=torch.float64, device=ranks.device)
    counted, tokens = 0, 0
    for batch, own_tokens in batches:
        with autocast(model, ranks.device):
            loss = training_loss(model, batch, smoothing=smoothing, chunked=chunked)
        loss.backward()
        loss_sum += loss.detach()
        counted += len(batch.targets_N)
        tokens += own_tokens
    return torch.stack([loss_sum, loss_sum.new_tensor(counted), loss_sum.new_tensor(tokens)])


def update_weights(
    state: TrainingState, sums: torch.Tensor, *, max_norm: float, ranks: Ranks
) -> tuple[float, float, float, float]:
    """Make one optimizer step and return (mean loss, tokens, stop, save) over all ranks.

    The gradients are summed over the ranks and divided afterwards: a summed float16 loss is large enough that its
    gradients do not underflow.
    Raises: NotFinite if the gradient's norm is not finite.
    """
    parameters = list(trainable_parameters(state.model).values())
    total = all_reduce_gradients([] if state.whole else parameters, sums, ranks).tolist()
    loss, counted, tokens, stop, save = total
    # of a whole model, weights that no token reached have none; it is the same set on every rank (full_training.py)
    parameters = [one for one in parameters if one.grad is not None]
    for parameter in parameters:
        parameter.grad.div_(counted)
    if max_norm > 0:
        norm = whole_tensor(torch.nn.utils.clip_grad_norm_(parameters, max_norm))
        if not norm.isfinite():
            raise NotFinite(f"the gradient's norm is {float(norm)}; lower train.learning_rate")
    state.optimizer.step()
    state.scheduler.step()
    return loss / counted, tokens, stop, save


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
