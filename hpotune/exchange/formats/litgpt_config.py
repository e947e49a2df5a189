"""A config for `litgpt finetune_lora`. Pure.

litgpt has a learning rate schedule of its own (linear warm-up, cosine to 0), no gradient clipping, and targets by kind
of layer. Source: https://github.com/Lightning-AI/litgpt, litgpt/finetune/lora.py, args.py; tests/data/tool_fields.json
holds the arguments of the version that was read.
"""

from __future__ import annotations

import math

from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.exchange.formats.tool_file import ToolFile, yaml_file
from hpotune.exchange.trial_setting import TrialSetting

_LAYERS = {
    "lora_query": {"q_proj"},
    "lora_key": {"k_proj"},
    "lora_value": {"v_proj"},
    "lora_projection": {"o_proj"},
    "lora_mlp": {"gate_proj", "up_proj", "down_proj"},
    "lora_head": {"lm_head"},
}
"""litgpt's switch -> names of the modules in transformers' models that it stands for."""
_PRECISION = {"float32": "32-true", "bfloat16": "bf16-true", "float16": "16-true", "float64": "64-true"}
_ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_hf")


def litgpt_config(setting: TrialSetting) -> ToolFile:
    """The config as `litgpt finetune_lora --config` reads it.

    Raises: StudyFileError for an optimizer, target modules or a rank pattern that litgpt does not have.
    """
    setting.notes.append(
        "litgpt averages the loss over the tokens of each forward pass, not of the whole step, and tokenizes prompt "
        "and answer apart"
    )
    micro_batch, accumulation = setting.batch()
    values: dict[str, Value] = {
        "checkpoint_dir": _checkpoint(setting),
        "out_dir": "output",
        "precision": _PRECISION[setting.dtype],
        "devices": 1,
        "lora_r": setting.value("lora.r"),
        "lora_alpha": setting.value("lora.lora_alpha"),
        "lora_dropout": float(setting.number_of("lora.lora_dropout")),
        **_layers(setting),
        "data": {
            "class_path": "litgpt.data.JSON",
            "init_args": {
                "json_path": "rows",
                "mask_prompt": True,
                "prompt_style": {"class_path": "litgpt.prompts.Default"},
                "seed": setting.seed,
            },
        },
        "train": _train(setting, micro_batch=micro_batch, accumulation=accumulation),
        "eval": {"interval": max(1, setting.steps // 10)},
        "optimizer": _optimizer(setting),
        "seed": setting.seed,
    }
    return yaml_file(
        setting,
        values,
        name="litgpt.yaml",
        tool="litgpt",
        run="litgpt finetune_lora --config litgpt.yaml",
        rows="pairs",
    )


def _checkpoint(setting: TrialSetting) -> str:
    path = setting.model.path
    if path.startswith(("/", ".", "~", "package:")):
        setting.notes.append(f"model.path={path!r}: convert it first: litgpt convert_to_litgpt CHECKPOINT")
    return path


def _layers(setting: TrialSetting) -> dict[str, Value]:
    found = setting.value("lora.target_modules")
    known = {name for names in _LAYERS.values() for name in names}
    if found == "all-linear":
        wanted = known - _LAYERS["lora_head"]
    elif isinstance(found, list):
        wanted = {str(name).split(".")[-1] for name in found}
    else:
        raise StudyFileError(
            f"--as litgpt: lora.target_modules={found!r}: it needs kinds of layers there, not a pattern; use trl"
        )
    if unknown := sorted(wanted - known):
        raise StudyFileError(
            f"--as litgpt: lora.target_modules: {unknown[0]!r} is no layer of litgpt; it knows "
            f"{', '.join(sorted(known))}"
        )
    mlp = _LAYERS["lora_mlp"]
    if wanted & mlp and not mlp <= wanted:
        setting.notes.append(
            f"lora.target_modules: {', '.join(sorted(mlp - wanted))} get an adapter too, since litgpt switches all "
            "layers of the MLP together"
        )
    return {switch: bool(names & wanted) for switch, names in _LAYERS.items()}


def _train(setting: TrialSetting, *, micro_batch: int, accumulation: int) -> dict[str, Value]:
    epochs, limit = setting.number_of("train.num_train_epochs"), setting.value("train.max_steps")
    schedule = setting.value("train.lr_scheduler_type")
    if schedule != "cosine":
        setting.notes.append(f"train.lr_scheduler_type={schedule}: litgpt lowers the rate as a cosine, to 0")
    clipping = setting.value("train.max_grad_norm")
    if clipping:
        setting.notes.append(f"train.max_grad_norm={clipping}: litgpt does not clip gradients")
    if setting.value("train.label_smoothing_factor"):
        factor = setting.point.train["label_smoothing_factor"]
        setting.notes.append(f"train.label_smoothing_factor={factor}: litgpt has no key for it")
    if setting.value("train.gradient_checkpointing"):
        setting.notes.append(
            "train.gradient_checkpointing: litgpt has no key for it (it changes the memory only)"
        )
    warmup = setting.warmup
    if warmup == 0:
        warmup = 1
        setting.notes.append(
            "train.warmup_steps=0: litgpt divides by it; the first step has the rate 0 instead"
        )
    has_limit = isinstance(limit, int) and limit > 0
    return {
        "global_batch_size": micro_batch * accumulation,
        "micro_batch_size": micro_batch,
        "lr_warmup_steps": warmup,
        "epochs": max(1, math.ceil(epochs)) if not has_limit else max(1, setting.steps),
        "max_steps": setting.steps,
        "max_seq_length": setting.data.max_length,
        "save_interval": max(1, setting.steps),
    }


def _optimizer(setting: TrialSetting) -> Value:
    name = str(setting.value("train.optim"))
    rate, decay = setting.value("train.learning_rate"), setting.value("train.weight_decay")
    if name in _ADAMW:
        first, second = setting.value("train.adam_beta1"), setting.value("train.adam_beta2")
        options: dict[str, Value] = {
            "betas": [0.9 if first is None else first, 0.999 if second is None else second],
            "eps": setting.value("train.adam_epsilon") or 1e-8,
        }
        path = "torch.optim.AdamW"
    elif name == "sgd":
        path, options = "torch.optim.SGD", {"momentum": setting.value("train.sgd_momentum") or 0.0}
    elif name in ("adagrad", "rmsprop"):
        path, options = {"adagrad": "torch.optim.Adagrad", "rmsprop": "torch.optim.RMSprop"}[name], {}
    else:
        raise StudyFileError(
            f"--as litgpt: train.optim={name}: litgpt takes optimizers of torch.optim only (adamw_torch, sgd, adagrad, "
            "rmsprop); use trl or axolotl"
        )
    return {"class_path": path, "init_args": {"lr": rate, "weight_decay": decay, **options}}
