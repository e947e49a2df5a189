"""The shape of a base model from its config.json: what a memory estimate needs to know, read without torch.

Decoders of the Llama family only: gated feed-forward layers, grouped attention. Of another architecture nothing is
estimated, since a number that may be wrong is worse than none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpotune.config.json_file import optional_object
from hpotune.config.lm_eval_tasks import cache_folder
from hpotune.config.yaml_source import Value


class UnknownMemory(ValueError):
    """The memory cannot be estimated; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Family:
    """What the architectures of a model type share, by transformers' modelling files."""

    tied: bool = False
    """Whether input and output embedding are one tensor where the config does not say it."""
    norms: int = 2
    """Norms of the width of the hidden states, per layer."""
    head_norms: Literal["", "head", "whole"] = ""
    """What is normalised of queries and keys: each head, or all heads together."""
    fused: bool = False
    """Whether queries, keys and values, and gate and up, are one matrix each."""
    head_dim: int | None = None
    """Where the config does not say it; None: hidden size / heads."""
    biased: bool = False
    """Whether queries, keys and values have a bias."""


FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(),
    "mistral": _Family(),
    "smollm3": _Family(tied=True),
    "granite": _Family(),
    "qwen2": _Family(biased=True),
    "qwen3": _Family(head_norms="head", head_dim=128),
    "gemma": _Family(tied=True, head_dim=256),
    "gemma3_text": _Family(tied=True, norms=4, head_norms="head", head_dim=256),
    "olmo2": _Family(head_norms="whole"),
    "phi3": _Family(fused=True),
}
"""Model type of a config.json -> what is known of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Sizes of a decoder, in numbers (not bytes)."""

    hidden: int
    feed_forward: int
    layers: int
    queries: int
    """Width of the queries: heads x head size."""
    keys: int
    """Width of the keys, and of the values."""
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool
    norms: int
    head_norms: int
    """Weights of the norms of queries and keys in a layer; 0: they are not normalised."""
    fused: bool
    biased: bool
    windowed: bool
    """Whether attention has a sliding window, so that every pass has a mask."""

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Name of each linear module of a layer -> (inputs, outputs)."""
        h, f, q, k = self.hidden, self.feed_forward, self.queries, self.keys
        if self.fused:
            attention, gate = {"qkv_proj": (h, q + 2 * k)}, {"gate_up_proj": (h, 2 * f)}
        else:
            attention = {"q_proj": (h, q), "k_proj": (h, k), "v_proj": (h, k)}
            gate = {"gate_proj": (h, f), "up_proj": (h, f)}
        return {**attention, "o_proj": (q, h), **gate, "down_proj": (f, h)}

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer."""
        matrices = sum(inputs * outputs for inputs, outputs in self.linear.values())
        biases = self.queries + 2 * self.keys if self.biased else 0
        return matrices + biases + self.norms * self.hidden + self.head_norms

    @property
    def outer_parameters(self) -> int:
        """Weights outside of the layers: embedding, output layer, last norm."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layers * self.layer_parameters + self.outer_parameters


def shape_of_config(config: Mapping[str, Value]) -> ModelShape:
    """The shape of a model with this config.json.

    Raises: UnknownMemory for an architecture that is not known, a quantized model, or a size that is missing.
    """
    kind = str(config.get("model_type"))
    family = FAMILIES.get(kind)
    if family is None:
        raise UnknownMemory(f"its model type is {kind}, and known are {', '.join(FAMILIES)}")
    if config.get("quantization_config"):
        raise UnknownMemory("its weights are quantized")

    def size(key: str, otherwise: int | None = None) -> int:
        value = config.get(key)
        value = otherwise if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UnknownMemory(f"its config.json has no {key}")
        return value

    hidden, heads = size("hidden_size"), size("num_attention_heads")
    head = size("head_dim", family.head_dim or hidden // heads)
    pairs = size("num_key_value_heads", heads)
    tied, window = config.get("tie_word_embeddings"), config.get("sliding_window")
    return ModelShape(
        hidden=hidden,
        feed_forward=size("intermediate_size"),
        layers=size("num_hidden_layers"),
        queries=heads * head,
        keys=pairs * head,
        heads=heads,
        key_heads=pairs,
        vocabulary=size("vocab_size"),
        tied=family.tied if not isinstance(tied, bool) else tied,
        norms=family.norms,
        head_norms={"": 0, "head": 2 * head, "whole": (heads + pairs) * head}[family.head_norms],
        fused=family.fused,
        biased=family.biased or bool(config.get("attention_bias")),
        windowed=window is not None and config.get("use_sliding_window", True) is not False,
    )


def read_shape(path: str, *, revision: str | None) -> ModelShape:
    """The shape of the model at `model.path`: a folder, an id in the hub's cache, or a converted GGUF file.

    Raises: UnknownMemory where its config.json is not on this machine, or says too little.
    """
    found = config_file(path, revision=revision)
    config = optional_object(found) if found is not None else None
    if config is None:
        raise UnknownMemory("its config.json is not on this machine")
    return shape_of_config(config)


def config_file(path: str, *, revision: str | None) -> Path | None:
    """The config.json of a model; None where it is not on this machine. Never asks the network."""
    if path.endswith(".gguf"):
        stem = Path(path).stem
        converted = [*(cache_folder() / "models").glob(f"{stem}-*/config.json")]
        return converted[0] if len(converted) == 1 else None
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder / "config.json"
    snapshot = hub_snapshot(path, revision or "main")
    return snapshot / "config.json" if snapshot is not None else None


def hub_snapshot(repo: str, revision: str) -> Path | None:
    """The folder of a model in the hub's cache, which need not exist; None where no such name can be cached.

    Source: huggingface_hub, file_download.py, the layout of its cache.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        return None
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    )
    hub = Path(os.environ.get("HF_HUB_CACHE") or home.expanduser() / "hub").expanduser()
    cached = hub / f"models--{repo.replace('/', '--')}"
    reference = cached / "refs" / revision
    try:
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    except (OSError, UnicodeDecodeError):
        return None
    return cached / "snapshots" / commit if re.fullmatch(r"[\w.-]+", commit) else None
