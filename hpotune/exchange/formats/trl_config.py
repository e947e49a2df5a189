"""A config for `trl sft` (TRL's SFTConfig, ModelConfig and ScriptArguments). Pure.

Source: https://huggingface.co/docs/trl, trl/scripts/sft.py; tests/data/tool_fields.json holds the fields of the version
that was read.
"""

from __future__ import annotations

from hpotune.config.yaml_source import Value
from hpotune.exchange.formats.tool_file import ToolFile, half_precision, sgd_momentum, yaml_file
from hpotune.exchange.trial_setting import TrialSetting

_LORA = {
    "lora.r": "lora_r",
    "lora.lora_alpha": "lora_alpha",
    "lora.lora_dropout": "lora_dropout",
    "lora.target_modules": "lora_target_modules",
    "lora.target_parameters": "lora_target_parameters",
    "lora.modules_to_save": "lora_modules_to_save",
    "lora.use_rslora": "use_rslora",
    "lora.use_dora": "use_dora",
}
"""Key of the study file -> field of trl's ModelConfig; it has no other fields of peft.LoraConfig."""
SAME_IN_TRAINER = (
    "learning_rate", "num_train_epochs", "max_steps", "lr_scheduler_type", "lr_scheduler_kwargs", "optim",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor",
    "neftune_noise_alpha", "gradient_checkpointing", "data_seed", "dataloader_drop_last", "tf32",
)  # fmt: skip
"""Fields of `train` that a tool built on transformers' Trainer reads under their own names."""


def trainer_values(setting: TrialSetting) -> dict[str, Value]:
    """What a tool built on transformers' Trainer reads: the fields of TrainingArguments."""
    micro_batch, accumulation = setting.batch()
    return {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "per_device_eval_batch_size": setting.point.score.batch_size,
        **{key: setting.value(f"train.{key}") for key in SAME_IN_TRAINER},
        "optim_args": sgd_momentum(setting),
        "warmup_steps": setting.warmup,
        "seed": setting.seed,
        "eval_strategy": "no" if setting.data.validation == 0 else "epoch",
        "save_strategy": "epoch",
        "logging_steps": 10,
        "report_to": "none",
        "output_dir": "output",
    }


def trl_config(setting: TrialSetting) -> ToolFile:
    """The config as `trl sft --config` reads it."""
    setting.notes.append("the rows of a step are drawn in another order, so that the losses differ a little")
    tokenizer = setting.value("model.tokenizer")
    if tokenizer is not None:
        setting.notes.append(
            f"model.tokenizer={tokenizer!r}: is only used for the rows, which are tokenized already"
        )
    values: dict[str, Value] = {
        "model_name_or_path": setting.model.path,
        "model_revision": setting.value("model.revision"),
        "trust_remote_code": setting.value("model.trust_remote_code"),
        "attn_implementation": setting.value("model.attn_implementation"),
        "dtype": "float32" if setting.dtype == "float64" else setting.dtype,
        "dataset_name": "rows",
        "dataset_train_split": "train",
        "dataset_test_split": "validation",
        "max_length": setting.data.max_length,
        "packing": False,
        "use_peft": True,
        **{field: setting.value(name) for name, field in _LORA.items()},
        **trainer_values(setting),
        **half_precision(setting),
    }
    return yaml_file(
        setting, values, name="trl.yaml", tool="trl", run="trl sft --config trl.yaml", rows="tokens"
    )
