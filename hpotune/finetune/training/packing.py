"""Short rows packed into sequences (`train.packing`), each of them computed as if it stood alone.

    rows of a step -> this rank's rows -> sequences of at most the longest row's tokens -> passes -> Batch

Positions start again at 0 with each row, by which transformers isolates the rows' attention (masking_utils,
find_packed_sequence_indices; flash attention needs all rows of a pass in one sequence). `check_isolation` proves it for
the model that is trained: the gradient of one row's logits by the embeddings of the other row of its sequence is
exactly 0, and its logits are those that it has alone.
Shape suffixes: B batch, T tokens, N counted positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence

import torch
import transformers

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.labels import base_config
from hpotune.finetune.training.loss import IGNORED, Batch, Row, autocast, forward, on_device
from hpotune.finetune.trial_errors import UserError

ROUNDING = 64
"""Allowed difference of a row's logits, in roundings of the largest one, to those that it has alone."""
CHECKED_TOKENS = 12
KEY = "train.packing"


def sequences(rows: Sequence[int], lengths: Mapping[int, int], *, capacity: int) -> list[list[int]]:
    """The rows in sequences of at most `capacity` tokens: the longest first, each into the first with room.

    `lengths`: row -> its tokens, none above `capacity`.
    """
    found: list[list[int]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: -lengths[row]):
        chosen = next((at for at, left in enumerate(room) if left >= lengths[row]), len(found))
        if chosen == len(found):
            found.append([])
            room.append(capacity)
        found[chosen].append(row)
        room[chosen] -= lengths[row]
    return found


def rank_passes(
    batch: Sequence[int],
    lengths: Mapping[int, int],
    *,
    rank: int,
    world_size: int,
    micro_batch: int,
    capacity: int,
) -> list[list[list[int]]]:
    """The passes of a rank, each of at most `micro_batch` sequences of rows.

    Every rank makes the same number, some of them without rows: a pass of a sharded model is a collective.
    """
    ranks = [sequences(batch[one::world_size], lengths, capacity=capacity) for one in range(world_size)]
    passes = math.ceil(max(map(len, ranks)) / micro_batch)
    return [ranks[rank][at * micro_batch : (at + 1) * micro_batch] for at in range(passes)]


def flat(packed: Sequence[Sequence[int]]) -> list[list[int]]:
    """The rows of a pass as one sequence, without padding; a pass without rows stays one."""
    return [[row for rows in packed for row in rows]] if packed else []


def reads_flat(model: torch.nn.Module) -> bool:
    """Whether the attention of a model keeps packed rows apart in a batch of one sequence only, as flash attention."""
    chosen = getattr(model.config.get_text_config(), "_attn_implementation", None)
    return str(chosen).startswith("flash_attention")


def collate_packed(
    packed: Sequence[Sequence[Row]], *, pad_id: int, device: torch.device, ignore_all: bool = False
) -> Batch:
    """Sequences of rows as one batch; `ignore_all`: its loss counts no position.

    A padding token has the position 0, so that it is alone, too.
    """
    length = max(sum(len(row.ids) for row in rows) for rows in packed)
    ids, positions, counted = list[list[int]](), list[list[int]](), list[tuple[int, int]]()
    for number, rows in enumerate(packed):
        own_ids, own_positions = list[int](), list[int]()
        for row in rows:
            start = number * length + len(own_ids)
            counted += [
                (position, target)
                for position, target in enumerate(row.targets[1:], start=start)
                if target != IGNORED
            ]
            own_ids += row.ids
            own_positions += range(len(row.ids))
        ids.append(own_ids + [pad_id] * (length - len(own_ids)))
        positions.append(own_positions + [0] * (length - len(own_ids)))
    counted = [] if ignore_all else counted
    ids_BT = on_device(ids, device)
    return Batch(
        ids_BT=ids_BT,
        mask_BT=torch.ones_like(ids_BT),
        position_ids_BT=on_device(positions, device),
        positions_N=on_device([position for position, _ in counted], device),
        targets_N=on_device([target for _, target in counted], device),
        of_tokens=True,
    )


def check_packing(model: ModelConfig, train: Mapping[str, Value]) -> None:
    """Check by the study file and the model's config whether rows can be packed.

    Raises: UserError.
    """
    if not train.get("packing"):
        return
    if model.task != "causal_lm":
        raise UserError(f"{KEY}: a {model.task} model reads one class for each sequence; remove it")
    if train.get("neftune_noise_alpha") is not None:
        raise UserError(
            f"{KEY}: the noise of train.neftune_noise_alpha depends on a sequence's length; remove one"
        )
    config = base_config(model)
    mapping = transformers.AutoModelForCausalLM._model_mapping
    kind = mapping.get(type(config), None)
    if kind is None:
        return  # code of its own, or no language model: the check before the first step decides
    takes = inspect.signature(kind.forward).parameters
    if getattr(kind, "_is_stateful", False) or "position_ids" not in takes:
        raise UserError(
            f"{KEY}: a {config.model_type} model cannot keep packed rows apart (it takes no positions, or carries a "
            "state from token to token); remove it"
        )


def check_isolation(model: torch.nn.Module, rows: Sequence[Row], *, pad_id: int, ranks: Ranks) -> None:
    """Check on two rows that neither the logits nor a gradient of the second depend on the first.

    Every rank of a sharded model makes the same passes. Leaves no gradient behind.
    Raises: UserError.
    """
    first, second = (_part(row) for row in (rows[0], rows[-1]))
    was_training = model.training
    model.eval()
    kept: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    try:
        with torch.no_grad(), autocast(model, ranks.device):
            alone_NV = forward(model, collate_packed([[second]], pad_id=pad_id, device=ranks.device))
        batch = collate_packed([[_silent(first), second]], pad_id=pad_id, device=ranks.device)
        handle = model.get_input_embeddings().register_forward_hook(keep)
        try:
            with autocast(model, ranks.device):
                packed_NV = forward(model, batch)
        finally:
            handle.remove()
        packed_NV.square().sum().backward()
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{KEY}: the model cannot be given packed rows ({error}); remove it") from error
    finally:
        model.zero_grad()
        model.train(was_training)
    gradient_TH = kept[-1].grad[0] if kept and kept[-1].grad is not None else None
    length = len(first.ids)
    if gradient_TH is None or not gradient_TH[length:].any():
        raise UserError(f"{KEY}: whether rows are kept apart cannot be tested for this model; remove it")
    largest = float(alone_NV.abs().max())
    # eager attention computes its softmax in float32, whatever the model's dtype is
    eps = max(torch.finfo(next(model.parameters()).dtype).eps, torch.finfo(torch.float32).eps)
    rounding = ROUNDING * eps * largest
    if gradient_TH[:length].any() or float((packed_NV.detach() - alone_NV).abs().max()) > rounding:
        raise UserError(
            f"{KEY}: a row in this model ({model.config.model_type}) depends on the row before it in its sequence; "
            "remove it"
        )


def _part(row: Row) -> Row:
    """The first tokens of a row, all of them counted."""
    ids = row.ids[:CHECKED_TOKENS]
    return Row(ids=ids, targets=list(ids))


def _silent(row: Row) -> Row:
    """The row with no token counted."""
    return Row(ids=row.ids, targets=[IGNORED] * len(row.ids))
