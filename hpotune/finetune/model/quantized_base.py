"""A base model whose linear layers are rounded to 4 bits when it is loaded (QLoRA), by bitsandbytes.

Source: Dettmers, Pagnoni, Holtzman, Zettlemoyer: QLoRA (2023), arXiv:2305.14314: 4-bit NormalFloat, double
quantization; the products are computed in model.dtype.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import torch
import transformers

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.trial_errors import UserError

PACKAGE = "bitsandbytes"


def check_quantization(config: ModelConfig, lora: Mapping[str, Value]) -> None:
    """Check that the base model of this section can be quantized here, and that the adapter can start from it.

    Raises: UserError.
    """
    if config.quantization is None:
        return
    if importlib.util.find_spec(PACKAGE) is None:
        raise UserError(
            f"model.quantization: {config.quantization} needs the package {PACKAGE}; pip install {PACKAGE}, or "
            "remove it"
        )
    if config.dtype == "float64":
        raise UserError(
            f"model.quantization: {PACKAGE} does not compute in model.dtype: float64; write bfloat16 or float32"
        )
    start = lora.get("init_lora_weights", True)
    if start not in (True, False, "gaussian"):
        raise UserError(
            f"lora.init_lora_weights: {start} changes or reads the base weights, which model.quantization rounds to 4 "
            "bits; write true or gaussian, or remove model.quantization"
        )


def check_ranks(config: ModelConfig, *, world_size: int) -> None:
    """Check that the quantized weights are not to be sharded.

    Raises: UserError.
    """
    if config.quantization is not None and world_size > 1:
        raise UserError(
            f"model.quantization: {config.quantization} weights cannot be sharded over {world_size} ranks; use one "
            "rank a trial, or remove it"
        )


def quantization_options(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> dict[str, object]:
    """The options of `from_pretrained` for it; none where nothing is quantized."""
    if config.quantization is None:
        return {}
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.quantization,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
    )
    return {"quantization_config": settings, "device_map": {"": device}}
