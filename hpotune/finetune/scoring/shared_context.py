"""Likelihoods of answers with each shared context forwarded once, and the logits of scored positions only.

lm-eval's own way forwards context and answer of each request, and computes the logits of every token. Here an item is
one row and a few-shot prefix one pass (shared_rows.py), and a hook before the output layer keeps the scored positions.
The numbers are lm-eval's: in float32 the log-likelihoods differ by rounding (below 1e-4), so the metrics are equal; in
bfloat16 they differ as little as two batch sizes do. `differs` compares a sample with lm-eval's own way each time, so
that a model which treats masks, positions or caches in another way is scored by lm-eval itself.

Not for models that are not attention alone, or whose attention takes no mask of its own (flash_attention_2); `unfit`
says why. Where layers attend to a window, only requests that are no longer than it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from hpotune.finetune.scoring.shared_rows import Cluster, Item, RowTensors, batches_of, row_tensors

Answer = tuple[float, bool]
"""The log-likelihood of an answer, and whether greedy decoding would give it."""
SAMPLE_SHARE = 8
"""One item of so many is compared with lm-eval's own way ..."""
LARGEST_SAMPLE = 4
"""... but not more than these."""
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 3e-4}
"""Difference of a token's log-probability that rounding explains (root mean square); eager attention computes its
softmax in float32 also for a model in float64."""
_COARSE = 0.1
"""The same in bfloat16 and float16: about three times what was measured (docs/benchmarks.md)."""
_WINDOW = "sliding_attention"


class SharedPrefixLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a prefix, which every row of a pass reads; those of the rows are not kept."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of prefix and rows, (B, heads, S, size); the layer itself stays as it is."""
        rows = key_states.shape[0]
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


class NotShareable(Exception):
    """The model does not work as this module needs it to; the text says how."""


def unfit(model: torch.nn.Module) -> str | None:
    """Why contexts cannot be shared in this model; None where nothing is known against it."""
    config = model.config.get_text_config()
    if config.is_encoder_decoder:
        return "it has an encoder"
    if getattr(config, "_attn_implementation", None) not in ("sdpa", "eager"):
        return f"its attention ({config._attn_implementation}) takes no mask of its own"
    if others := _layer_kinds(model) - {"full_attention", _WINDOW}:
        return f"it has layers of {', '.join(sorted(others))}"
    if getattr(model, "get_output_embeddings", lambda: None)() is None:
        return "its output layer is not known"
    return None


def _layer_kinds(model: torch.nn.Module) -> set[str]:
    config = model.config.get_text_config()
    if kinds := getattr(config, "layer_types", None):
        return set(kinds)
    has_window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return {_WINDOW if has_window else "full_attention"}


class SharedContext:
    """Answers requests for a causal language model whose items share their contexts."""

    def __init__(self, model: torch.nn.Module, *, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._kept_N: torch.Tensor | None = None
        """Flat positions whose hidden states reach the output layer in the pass that runs."""
        self.longest = (
            model.config.get_text_config().sliding_window if _WINDOW in _layer_kinds(model) else None
        )
        """Tokens of a request, at most; None: any number."""
        self._bool_mask = model.config.get_text_config()._attn_implementation == "sdpa"

    @property
    def dtype(self) -> torch.dtype:
        """The data type in which it computes: that of autocast, else the least precise of the weights."""
        if torch.is_autocast_enabled(self._device.type):
            return torch.get_autocast_dtype(self._device.type)
        kinds = {one.dtype for one in self._model.parameters() if one.dtype.is_floating_point}
        return min(kinds, key=lambda kind: kind.itemsize)

    def answers(
        self,
        clusters: Sequence[Cluster],
        *,
        rows: int,
        tokens: int,
        logits: int,
        answered: Callable[[int], None] = lambda count: None,
    ) -> dict[int, Answer]:
        """The answer of each request by its position. A pass has at most `rows` rows, and `tokens` tokens of which the
        logits of `logits` are computed; at least one row. `answered` is called after each pass with its requests.

        Raises: NotShareable.
        """
        found: dict[int, Answer] = {}
        with torch.no_grad(), self._scored_positions_only():
            for cluster in clusters:
                past = self._prefix(cluster) if cluster.prefix else None
                for items in batches_of(cluster, rows=rows, tokens=tokens, logits=logits):
                    found.update(self._pass(items, past, prefix=cluster.prefix))
                    answered(sum(len(item.requests) for item in items))
        return found

    def _prefix(self, cluster: Cluster) -> Cache:
        ids_1T = torch.tensor([cluster.items[0].context[: cluster.prefix]], device=self._device)
        cache = DynamicCache()
        self._kept_N = torch.zeros(1, dtype=torch.long, device=self._device)
        self._forward(input_ids=ids_1T, past_key_values=cache, use_cache=True)
        if any(
            type(layer) is not DynamicLayer or layer.get_seq_length() != cluster.prefix
            for layer in cache.layers
        ):
            raise NotShareable("its cache is not one of keys and values of every token")
        return Cache(layers=[SharedPrefixLayer(layer.keys, layer.values) for layer in cache.layers])

    def _pass(
        self, items: Sequence[Item], past: Cache | None, *, prefix: int
    ) -> Iterator[tuple[int, Answer]]:
        logits_NV = self._logits(row_tensors(items, prefix=prefix), past)
        if logits_NV.dtype.itemsize < 4:
            logits_NV = logits_NV.float()
        spots, ids = zip(*_targets(items), strict=True)
        picked_M = logits_NV[list(spots), list(ids)] - logits_NV.logsumexp(-1)[list(spots)]
        best_M = logits_NV.argmax(-1)[list(spots)]
        logs, best = picked_M.tolist(), best_M.tolist()
        start = 0
        for item in items:
            for answer, request in zip(item.answers, item.requests, strict=True):
                end = start + len(answer)
                yield request, (sum(logs[start:end]), best[start:end] == answer)
                start = end

    def _logits(self, row: RowTensors, past: Cache | None) -> torch.Tensor:
        """The logits of the scored positions, (N, V)."""
        mask = row.mask_B1TS.to(self._device)
        if not self._bool_mask:
            dtype = next(self._model.parameters()).dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=self._device).masked_fill(
                ~mask, torch.finfo(dtype).min
            )
        self._kept_N = row.scored_N.to(self._device)
        logits = self._forward(
            input_ids=row.ids_BT.to(self._device),
            attention_mask=mask,
            position_ids=row.positions_BT.to(self._device),
            past_key_values=past,
            use_cache=past is not None,
        )
        if logits.shape[:2] != (1, len(row.scored_N)):
            raise NotShareable("its output layer is not called once with all hidden states")
        return logits[0]

    def _forward(self, **inputs: object) -> torch.Tensor:
        """The logits of a pass.

        Raises: NotShareable where the model cannot take such input; Paused, OutOfMemoryError.
        """
        try:
            logits: torch.Tensor = self._model(**inputs).logits
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise NotShareable(f"it refuses a mask, positions or a cache ({type(error).__name__})") from error
        return logits

    @contextmanager
    def _scored_positions_only(self) -> Iterator[None]:
        """A context in which the output layer gets the hidden states of `_kept_N` only, as one row."""

        def keep(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            if not args or args[0].dim() != 3:
                raise NotShareable("its output layer is not called with hidden states")
            return (args[0].flatten(0, 1)[self._kept_N][None], *args[1:])

        handle = self._model.get_output_embeddings().register_forward_pre_hook(keep)
        try:
            yield
        finally:
            handle.remove()


def _targets(items: Sequence[Item]) -> Iterator[tuple[int, int]]:
    """For each token of each answer: the scored position that predicts it, and its id."""
    start = 0
    for item in items:
        after = start + 1
        for answer in item.answers:
            spots = [start, *range(after, after + len(answer) - 1)]
            yield from zip(spots, answer, strict=True)
            after += len(answer) - 1
        start = after


def sample_of(clusters: Sequence[Cluster]) -> list[Item]:
    """The items whose answers are compared: the longest and the shortest, with and without a prefix."""
    count = sum(len(cluster.items) for cluster in clusters)
    ends: tuple[list[Item], list[Item]] = ([], [])
    for with_prefix in (True, False):
        items = [item for one in clusters if bool(one.prefix) == with_prefix for item in one.items]
        if items:
            ends[0].append(max(items, key=lambda one: one.tokens))
            ends[1].append(min(items, key=lambda one: one.tokens))
    different = {id(item): item for end in ends for item in end}.values()
    return list(different)[: max(1, min(LARGEST_SAMPLE, count // SAMPLE_SHARE))]


def differs(
    mine: Sequence[Answer], theirs: Sequence[Answer], *, tokens: Sequence[int], dtype: torch.dtype
) -> bool:
    """Whether two ways to score the same answers differ by more than rounding in a model of this data type.

    `tokens`: of each answer. The rounding errors of its tokens add up as independent ones do.
    """
    squares = [
        0.0 if one == other or (isnan(one) and isnan(other)) else (one - other) ** 2 / count
        for (one, _), (other, _), count in zip(mine, theirs, tokens, strict=True)
    ]
    return not sum(squares) / len(squares) <= _TOLERANCES.get(dtype, _COARSE) ** 2
