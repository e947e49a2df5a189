"""The keys of `lora` and `train` that a trial supports, and why the others are refused; no key is silently ignored.

The names come from library_values.py (installed libraries or a recorded list); no library is imported. A field that is
in no table of this file is refused too, so that a new field of a later library version cannot be ignored unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hpotune.config.dependent_keys import dependent_key_mistakes
from hpotune.config.library_values import OWN_TYPES, field_types
from hpotune.config.space.range_parsing import range_kind
from hpotune.config.training_method import method_mistakes
from hpotune.config.yaml_source import Mistake, Value
from hpotune.errors import nearest

OWN = frozenset(OWN_TYPES)
"""Keys of `train` that hpotune adds."""

_LOOP = (
    "per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps learning_rate "
    "lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 "
    "adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor neftune_noise_alpha "
    "activation_checkpointing gradient_checkpointing seed data_seed dataloader_drop_last "
    "logging_steps save_steps tf32 torch_compile torch_compile_backend torch_compile_mode"
)
HONOURED = frozenset(_LOOP.split())
"""Fields of transformers.TrainingArguments that the training loop reads."""

_REASONS: dict[str, str] = {
    "hpotune sets it": (
        "output_dir run_name project do_train do_eval do_predict resume_from_checkpoint local_rank "
        "save_on_each_node ignore_data_skip restore_callback_states_from_checkpoint disable_tqdm "
        "log_level log_level_replica log_on_each_node"
    ),
    "write model.dtype instead": "bf16 fp16 bf16_full_eval fp16_full_eval",
    "with more than one rank the base model is sharded by fully_shard; write resources.gpus": (
        "fsdp fsdp_config deepspeed parallelism_config accelerator_config ddp_find_unused_parameters "
        "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout"
    ),
    "a trial reports to result.json, curve.jsonl and the store": (
        "report_to trackio_space_id trackio_bucket_id trackio_static_space_id "
        "include_num_input_tokens_seen skip_memory_metrics logging_strategy logging_first_step "
        "logging_nan_inf_filter debug"
    ),
    "use `hpotune export`": (
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision "
        "save_only_model"
    ),
    "checkpoints are written every save_steps, every ten minutes and on signals, and the last one is kept": (
        "save_strategy save_total_limit enable_jit_checkpoint"
    ),
    "a trial is evaluated once, at its end, on data.validation and score": (
        "eval_strategy eval_steps eval_delay eval_on_start eval_do_concat_batches eval_use_gather_object "
        "eval_accumulation_steps prediction_loss_only include_for_metrics batch_eval_metrics "
        "load_best_model_at_end metric_for_best_model greater_is_better"
    ),
    "rows are tokenised once and kept in memory": (
        "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
        "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order "
        "remove_unused_columns label_names"
    ),
    "batches depend on (seed, step) only, so that trials are paired and can resume from a checkpoint": (
        "train_sampling_strategy length_column_name"
    ),
    "write global_batch_size, and per_device_train_batch_size for the micro-batch": "auto_find_batch_size",
    "the loss is always the mean over the tokens of the global batch": "average_tokens_across_devices",
    "gradient checkpointing is always non-reentrant and covers every layer": (
        "activation_checkpointing_kwargs gradient_checkpointing_kwargs"
    ),
    "its optimizers change gradients of full weights, which an adapter does not have": "optim_target_modules",
    "its kernels run on GPUs only, where hpotune could not compare their numbers yet; the loss is computed in chunks "
    "without it (train.chunked_loss)": "use_liger_kernel liger_kernel_config",
    "it changes settings of the whole process, which other trials share": "full_determinism",
    "the cache is for generation only": "use_cache",
    "the CUDA cache is not emptied during training; lower per_device_train_batch_size": "torch_empty_cache_steps",
    "write score.batch_size": "per_device_eval_batch_size",
    "write CUDA_VISIBLE_DEVICES: '' in env.vars": "use_cpu",
    "write warmup_steps: 0.1; a value below 1 is a share of the steps": "warmup_ratio",
}
REFUSED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Known fields that a trial does not support -> the reason, or what to write instead."""

_LORA_REASONS: dict[str, str] = {
    "hpotune sets it": (
        "task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode "
        "runtime_config"
    ),
    "it is for Megatron, which hpotune does not use": "megatron_config megatron_core",
    "its initialization needs data before the training": "eva_config corda_config lora_ga_config",
    "it needs a further loss term, which a trial does not compute": "kasa_config monteclora_config",
    "it needs a base model quantized by GPTQ, which is not supported": "use_qalora qalora_group_size",
    "it routes between existing adapters": "arrow_config",
    "it is for block-diagonal inference on several GPUs": "use_bdlora",
}
REFUSED_LORA: dict[str, str] = {
    name: reason for reason, names in _LORA_REASONS.items() for name in names.split()
}
"""Fields of peft.LoraConfig that cannot work in a trial -> why."""


def lora_fields() -> frozenset[str]:
    """The names of the fields of peft.LoraConfig."""
    return frozenset(field_types("lora"))


def train_fields() -> frozenset[str]:
    """The names of the fields of transformers.TrainingArguments."""
    return frozenset(field_types("train"))


def check_lora_key(key: str) -> str | None:
    """The error of a key of `lora`; None if it is supported."""
    return _key_error(key, valid=lora_fields() - REFUSED_LORA.keys(), refused=REFUSED_LORA)


def check_train_key(key: str) -> str | None:
    """The error of a key of `train`; None if it is supported."""
    return _key_error(key, valid=(HONOURED & train_fields()) | OWN, refused=REFUSED)


def _key_error(key: str, *, valid: Iterable[str], refused: dict[str, str]) -> str | None:
    if key in refused:
        return f"{key} is not supported: {refused[key]}"
    return None if key in set(valid) else f"unknown key {key!r}; {nearest(key, valid)}"


def unknown_keys(values: Mapping[str, Value]) -> Iterator[Mistake]:
    """An error for each key of `lora` and `train` that the libraries do not have or a trial does not support.

    Also for each that the optimizer or the schedule of the file does not read.
    """
    for section, check in (("lora", check_lora_key), ("train", check_train_key)):
        keys = values.get(section)
        for key in keys if isinstance(keys, dict) and range_kind(keys) is None else ():
            error = check(key)
            if error:
                yield (section, key), f"{section}.{key}: {error}"
    train = values.get("train")
    if isinstance(train, dict) and range_kind(train) is None:
        yield from dependent_key_mistakes(train)
    yield from method_mistakes(values)
