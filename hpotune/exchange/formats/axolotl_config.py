"""A config for axolotl. Pure.

Source: https://docs.axolotl.ai/docs/config-reference.html, axolotl/utils/schemas; tests/data/tool_fields.json holds the
fields of the version that was read.
"""

from __future__ import annotations

from hpotune.config.yaml_source import Value
from hpotune.exchange.formats.tool_file import ToolFile, half_precision, sgd_momentum, yaml_file
from hpotune.exchange.trial_setting import TrialSetting

_LORA = {
    "lora.r": "lora_r",
    "lora.lora_alpha": "lora_alpha",
    "lora.lora_dropout": "lora_dropout",
    "lora.modules_to_save": "lora_modules_to_save",
    "lora.target_parameters": "lora_target_parameters",
    "lora.rank_pattern": "lora_rank_pattern",
    "lora.alpha_pattern": "lora_alpha_pattern",
    "lora.fan_in_fan_out": "lora_fan_in_fan_out",
    "lora.use_rslora": "peft_use_rslora",
    "lora.use_dora": "peft_use_dora",
    "lora.init_lora_weights": "peft_init_lora_weights",
    "lora.layers_to_transform": "peft_layers_to_transform",
    "lora.layers_pattern": "peft_layers_pattern",
    "lora.layer_replication": "peft_layer_replication",
    "lora.trainable_token_indices": "peft_trainable_token_indices",
    "lora.ensure_weight_tying": "peft_ensure_weight_tying",
}
"""Key of the study file -> axolotl's."""
_TRAIN = {
    "train.learning_rate": "learning_rate",
    "train.num_train_epochs": "num_epochs",
    "train.max_steps": "max_steps",
    "train.lr_scheduler_type": "lr_scheduler",
    "train.lr_scheduler_kwargs": "lr_scheduler_kwargs",
    "train.optim": "optimizer",
    "train.weight_decay": "weight_decay",
    "train.adam_beta1": "adam_beta1",
    "train.adam_beta2": "adam_beta2",
    "train.adam_epsilon": "adam_epsilon",
    "train.max_grad_norm": "max_grad_norm",
    "train.neftune_noise_alpha": "neftune_noise_alpha",
    "train.gradient_checkpointing": "gradient_checkpointing",
    "train.tf32": "tf32",
}


def axolotl_config(setting: TrialSetting) -> ToolFile:
    """The config as `axolotl train` reads it; its rows are tokenized, so that they have no `type`."""
    setting.notes.append("the rows of a step are drawn in another order, so that the losses differ a little")
    micro_batch, accumulation = setting.batch()
    if setting.value("train.label_smoothing_factor"):
        setting.notes.append(
            f"train.label_smoothing_factor={setting.point.train['label_smoothing_factor']}: axolotl has no key for it"
        )
    targets = _targets(setting)
    path = setting.model.path
    has_validation = setting.data.validation != 0
    values: dict[str, Value] = {
        "base_model": path,
        "revision_of_model": setting.value("model.revision"),
        "tokenizer_config": setting.value("model.tokenizer"),
        "trust_remote_code": setting.value("model.trust_remote_code"),
        "attn_implementation": setting.value("model.attn_implementation"),
        "adapter": "lora",
        **{key: setting.value(name) for name, key in _LORA.items()},
        **targets,
        "datasets": [_rows("train")],
        "test_datasets": [_rows("validation")] if has_validation else None,
        "val_set_size": 0,
        "sequence_len": setting.data.max_length,
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "train_on_inputs": False,
        "micro_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "eval_batch_size": setting.point.score.batch_size if has_validation else None,
        **{key: setting.value(name) for name, key in _TRAIN.items()},
        "optim_args": sgd_momentum(setting),
        "warmup_steps": setting.warmup,
        "seed": setting.seed,
        **half_precision(setting),
        "load_in_8bit": False,
        "load_in_4bit": False,
        "logging_steps": 10,
        "output_dir": "./output",
    }
    return yaml_file(
        setting, values, name="axolotl.yaml", tool="axolotl", run="axolotl train axolotl.yaml", rows="tokens"
    )


def _targets(setting: TrialSetting) -> dict[str, Value]:
    found = setting.value("lora.target_modules")
    return {"lora_target_linear": True} if found == "all-linear" else {"lora_target_modules": found}


def _rows(split: str) -> dict[str, Value]:
    file = f"rows/{split}.jsonl"
    return {"path": file, "ds_type": "json", "split": "train", "type": None}
