"""Ranges that `space: NAME` fills into a study file: each with its reason, its source and what that source is worth.

A range is never put where the study file says anything. docs/presets.md and templates/lora-default.yaml print these
texts. A study's resolved.yaml holds the ranges with which it was made, so a later table changes no existing study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hpotune.config.yaml_source import KeyPath, Value

Basis = Literal["experiments", "common practice", "reasoning"]
"""experiments: published comparisons of values. common practice: what papers and guides use, without a comparison.
reasoning: neither."""

SWEEP_LLAMA = "https://github.com/Kiwy3/BO_PBO_HPO_LLM"
SWEEP_LLAMA2 = "https://arxiv.org/abs/2312.00949"
WITHOUT_REGRET = "https://thinkingmachines.ai/blog/lora/"
LEARNS_LESS = "https://arxiv.org/abs/2405.09673"
QLORA = "https://arxiv.org/abs/2305.14314"
GUIDE = "https://unsloth.ai/docs/get-started/fine-tuning-llms-guide/lora-hyperparameters-guide"
ALPACA = "https://github.com/tatsu-lab/stanford_alpaca"
DEBERTA = "https://arxiv.org/abs/2006.03654"
SWEEP_DEBERTA = "https://arxiv.org/abs/2311.09480"


@dataclass(frozen=True, kw_only=True, slots=True)
class PresetRange:
    """One range, or one value, of a preset."""

    key: str
    """Dotted: `train.learning_rate`."""
    value: Value
    """As it would be written in a study file."""
    reason: str
    basis: Basis
    sources: tuple[str, ...]

    @property
    def where(self) -> KeyPath:
        """The key's path in the file."""
        return tuple(self.key.split("."))

    @property
    def text(self) -> str:
        """The value as it would be written in a study file, on one line."""
        return flow(self.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A named set of ranges."""

    name: str
    title: str
    method: str
    """The `train.method` that it is for: lora or full."""
    ranges: tuple[PresetRange, ...]


def flow(value: Value) -> str:
    """A value in YAML's flow style: `{float: [1.0e-5, 0.002], log: true}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, float) and value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    if isinstance(value, str):
        return json.dumps(value) if " " in value else value
    return json.dumps(value)


_WARMUP = PresetRange(
    key="train.warmup_steps",
    value={"float": [0.0, 0.1], "prior": 0.03},
    reason="a share of the steps; QLoRA and Alpaca used 0.03, and what matters is that the first "
    "steps are not at the full rate",
    basis="common practice",
    sources=(QLORA, ALPACA),
)
_DECAY = "weights of an adapter start at zero and are trained for few steps, so the decay hardly acts"
PRESETS: Mapping[str, Preset] = {
    one.name: one
    for one in (
        Preset(
            name="lora-default",
            title="a LoRA adapter on all linear layers",
            method="lora",
            ranges=(
                PresetRange(
                    key="train.learning_rate",
                    value={"float": [1.0e-5, 2.0e-3], "log": True, "prior": 2.0e-4},
                    reason="the key that matters most. Of 578 published trials on Llama-3.2 the best have 3e-5 to "
                    "1e-3, and all 16 above 1e-2 fell to chance; the best of 150 on Llama-2-7B have 3e-4 to "
                    "5e-4; 2e-4 is QLoRA's value for 7B and 13B. The best rate is about ten times that of "
                    "full fine-tuning",
                    basis="experiments",
                    sources=(SWEEP_LLAMA, SWEEP_LLAMA2, QLORA, WITHOUT_REGRET),
                ),
                PresetRange(
                    key="lora.r",
                    value={"int": [4, 256], "log": True, "prior": 16},
                    reason="limits what the adapter can hold: little data needs little rank (QLoRA found no effect "
                    "on chat data), code and mathematics gained up to 256; the best trials of both sweeps "
                    "have 64 to 512",
                    basis="experiments",
                    sources=(QLORA, LEARNS_LESS, SWEEP_LLAMA, SWEEP_LLAMA2),
                ),
                PresetRange(
                    key="lora.lora_alpha",
                    value={"expr": "2 * lora.r"},
                    reason="tied to the rank: the learning rate sets the size of the steps already, and searching "
                    "both costs trials. 2 is the advice of a comparison with full fine-tuning; the sweeps had"
                    " their best trials at alpha / r from 0.06 to 20, so the ratio itself is not well known",
                    basis="experiments",
                    sources=(LEARNS_LESS, SWEEP_LLAMA, SWEEP_LLAMA2),
                ),
                PresetRange(
                    key="lora.lora_dropout",
                    value={"float": [0.0, 0.2], "prior": 0.05},
                    reason="sources disagree, and the effect is small: QLoRA used 0.1 up to 13B and 0.05 above, the "
                    "best trials on Llama-2 have 0, those on Llama-3.2 anything from 0.05 to 0.45, guides "
                    "write 0",
                    basis="experiments",
                    sources=(QLORA, SWEEP_LLAMA2, SWEEP_LLAMA, GUIDE),
                ),
                PresetRange(
                    key="lora.target_modules",
                    value="all-linear",
                    reason="not searched: adapters on attention alone were worse in the studies that compared, and "
                    "names of layers differ between models",
                    basis="experiments",
                    sources=(LEARNS_LESS, WITHOUT_REGRET, QLORA),
                ),
                PresetRange(
                    key="train.global_batch_size",
                    value={"choice": [8, 16, 32, 64], "ordered": True, "prior": 16},
                    reason="adapters lose more than full fine-tuning by large batches; 16 is QLoRA's value; below 8 "
                    "a GPU is badly used",
                    basis="experiments",
                    sources=(WITHOUT_REGRET, QLORA),
                ),
                _WARMUP,
                PresetRange(
                    key="train.weight_decay",
                    value={"float": [1.0e-4, 0.1], "log": True, "prior": 0.01},
                    reason=f"{_DECAY}; 0.01 is what guides use, and no source measured an effect",
                    basis="common practice",
                    sources=(GUIDE, SWEEP_LLAMA),
                ),
            ),
        ),
        Preset(
            name="full-default",
            title="all weights of the model",
            method="full",
            ranges=(
                PresetRange(
                    key="train.method",
                    value="full",
                    reason="what the preset is for",
                    basis="reasoning",
                    sources=(),
                ),
                PresetRange(
                    key="train.learning_rate",
                    value={"float": [1.0e-6, 1.0e-4], "log": True, "prior": 2.0e-5},
                    reason="2e-5 is Alpaca's value for 7B; the best rate is about a tenth of an adapter's; with 1e-4"
                    " and more, a tenth and more of 2,048 trials of DeBERTa on MultiNLI collapsed",
                    basis="experiments",
                    sources=(ALPACA, WITHOUT_REGRET, SWEEP_DEBERTA),
                ),
                PresetRange(
                    key="train.global_batch_size",
                    value={"choice": [16, 32, 64, 128], "ordered": True, "prior": 32},
                    reason="Alpaca used 128, papers on classification 16 to 64; the best learning rate grows with it",
                    basis="common practice",
                    sources=(ALPACA, DEBERTA),
                ),
                _WARMUP,
                PresetRange(
                    key="train.weight_decay",
                    value={"float": [1.0e-4, 0.1], "log": True, "prior": 0.01},
                    reason="Alpaca used 0, BERT and DeBERTa 0.01; one or few epochs leave it little to do",
                    basis="common practice",
                    sources=(ALPACA, DEBERTA),
                ),
            ),
        ),
    )
}
