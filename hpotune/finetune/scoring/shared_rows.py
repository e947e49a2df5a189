"""Which tokens a forward pass holds when requests share their context: rows, prefixes, masks. No model here.

A multiple-choice item asks for the likelihoods of several answers after one context. lm-eval forwards the context once
for each answer. Here an item is one row, [context | answer 1 | answer 2 | ...]: the tokens of an answer attend to the
context and to the answer itself, and have the positions that they would have alone. Items whose contexts begin alike
(the few-shot examples of a subject) form a cluster: its prefix is forwarded once, and its keys and values serve all
rows. The last token of an answer predicts nothing, so it is left out, as lm-eval does.

Shape suffixes: B rows, T tokens of a row without the prefix, S prefix and row, N scored positions of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

LEAST_PREFIX = 48
"""Tokens that contexts must have in common for a pass of their own: a short pass is slower per token."""
LEAST_CLUSTER = 4
"""Items that a prefix must serve."""


@dataclass(kw_only=True, slots=True)
class Item:
    """Requests with the same context."""

    context: list[int]
    """Token ids, at least one."""
    answers: list[list[int]] = field(default_factory=list)
    """Token ids of each answer, at least one."""
    requests: list[int] = field(default_factory=list)
    """The position of each answer's request."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that lm-eval would forward for it."""
        return len(self.context) + max(map(len, self.answers)) - 1

    @property
    def tokens(self) -> int:
        """Tokens of its row."""
        return len(self.context) + sum(len(answer) - 1 for answer in self.answers)

    @property
    def scored(self) -> int:
        """Positions of its row whose logits count."""
        return 1 + sum(len(answer) - 1 for answer in self.answers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Items whose contexts begin with the same tokens."""

    prefix: int
    """The number of these tokens; 0: none are forwarded apart."""
    items: list[Item]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowTensors:
    """The input of one pass."""

    ids_BT: torch.Tensor
    positions_BT: torch.Tensor
    mask_B1TS: torch.Tensor
    """bool: whether the token of the row may attend to a token of prefix and row."""
    scored_N: torch.Tensor
    """Indices into the flattened (B x T) positions, item by item: the context's last token, then those of each answer
    but its last."""


def items_of(pairs: Sequence[tuple[list[int], list[int]]]) -> list[Item]:
    """The items of requests, given as the token ids of context and answer, in the order of their first request."""
    items: dict[tuple[int, ...], Item] = {}
    for position, (context, answer) in enumerate(pairs):
        item = items.setdefault(tuple(context), Item(context=context))
        item.answers.append(answer)
        item.requests.append(position)
    return list(items.values())


def clusters_of(items: Sequence[Item]) -> list[Cluster]:
    """The items by common prefix; the last cluster holds those without one. At least one token stays in each row."""
    clusters: list[Cluster] = []
    group: list[Item] = []
    prefix = 0
    for item in sorted(items, key=lambda one: one.context):
        common = _common(group[0].context[:prefix], item.context[:-1]) if group else 0
        if group and common >= LEAST_PREFIX and common * len(group) >= prefix * (len(group) - 1):
            group.append(item)
            prefix = common
            continue
        if group:
            clusters.append(Cluster(prefix=prefix, items=group))
        group, prefix = [item], len(item.context) - 1
    if group:
        clusters.append(Cluster(prefix=prefix, items=group))
    kept = [one for one in clusters if len(one.items) >= LEAST_CLUSTER]
    alone = [item for one in clusters if len(one.items) < LEAST_CLUSTER for item in one.items]
    return [*kept, Cluster(prefix=0, items=alone)] if alone else kept


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of leading tokens that are the same."""
    for position, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return position
    return min(len(first), len(second))


def batches_of(cluster: Cluster, *, rows: int, tokens: int, logits: int) -> list[list[Item]]:
    """The items of each pass, longest rows first.

    At most `rows` rows, `tokens` tokens (prefix and padding included) and `logits` scored positions; at least one row.
    """
    batches: list[list[Item]] = []
    width = scored = 0
    for item in sorted(cluster.items, key=lambda one: -one.tokens):
        full = not batches or len(batches[-1]) >= rows
        if full or (len(batches[-1]) + 1) * width > tokens or scored + item.scored > logits:
            batches.append([])
            width, scored = item.tokens, 0
        batches[-1].append(item)
        scored += item.scored
    return batches


def row_tensors(items: Sequence[Item], *, prefix: int) -> RowTensors:
    """The input of a pass over items whose first `prefix` tokens were forwarded before."""
    length = max(item.tokens for item in items) - prefix
    ids_BT = torch.zeros((len(items), length), dtype=torch.long)
    positions_BT = torch.zeros((len(items), length), dtype=torch.long)
    mask_BTS = torch.zeros((len(items), length, prefix + length), dtype=torch.bool)
    mask_BTS[:, :, :prefix] = True
    mask_BTS[:, range(length), range(prefix, prefix + length)] = (
        True  # padding attends to itself: no empty softmax
    )
    scored: list[int] = []
    for b, item in enumerate(items):
        context = len(item.context) - prefix
        ids_BT[b, :context] = torch.tensor(item.context[prefix:])
        positions_BT[b, :context] = torch.arange(prefix, prefix + context)
        mask_BTS[b, :context, prefix : prefix + context] = _causal(context)
        scored.append(b * length + context - 1)
        start = context
        for answer in item.answers:
            end = start + len(answer) - 1
            ids_BT[b, start:end] = torch.tensor(answer[:-1])
            positions_BT[b, start:end] = torch.arange(len(item.context), len(item.context) + end - start)
            mask_BTS[b, start:end, prefix : prefix + context] = True
            mask_BTS[b, start:end, prefix + start : prefix + end] = _causal(end - start)
            scored.extend(range(b * length + start, b * length + end))
            start = end
    return RowTensors(
        ids_BT=ids_BT,
        positions_BT=positions_BT,
        mask_B1TS=mask_BTS[:, None],
        scored_N=torch.tensor(scored),
    )


def _causal(length: int) -> torch.Tensor:
    return torch.ones((length, length), dtype=torch.bool).tril()
