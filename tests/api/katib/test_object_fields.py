"""Fields of real TrainingArguments and LoraConfig: ranges get through, defaults are left out, others are refused."""

from __future__ import annotations

from typing import Any

import pytest

from hpotune import search
from hpotune.api.katib.object_fields import object_fields
from hpotune.config.library_keys import HONOURED
from hpotune.errors import StudyFileError
from tests.fixtures.katib_rows import arguments, lora

TEXTS = {
    "optim": ["adamw_torch", "sgd"],
    "lr_scheduler_type": ["cosine", "linear"],
    "optim_args": ["momentum=0.9", "momentum=0.5"],
    "lr_scheduler_kwargs": [{"num_cycles": 1}, {"num_cycles": 2}],
}
FLAGS = {"tf32", "gradient_checkpointing", "activation_checkpointing", "dataloader_drop_last"}
SAME = {"activation_checkpointing": "gradient_checkpointing"}
SHARES = {"adam_beta1", "adam_beta2", "label_smoothing_factor"}


def sample(field: str) -> Any:
    """A range that fits a field."""
    if field in TEXTS:
        return search.categorical(TEXTS[field])
    if field in FLAGS:
        return search.categorical([True, False])
    if field in SHARES:
        return search.double(0.1, 0.5)
    return search.int(2, 4) if field.endswith(("steps", "size", "seed")) else search.double(0.25, 0.75)


@pytest.mark.parametrize(
    # tf32: transformers sets it at once, and needs a GPU; with one key of torch_compile it sets the others
    "field",
    sorted(HONOURED - {"tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode"}),
)
def test_range_gets_through_training_arguments(field: str) -> None:
    made = sample(field)
    found = object_fields(arguments(**{field: made}), section="train").values
    assert found == {SAME.get(field, field): made.study_value}


@pytest.mark.parametrize(
    ("field", "made"),
    [
        ("r", search.int(8, 32)),
        ("lora_alpha", search.int(8, 64, log=True)),
        ("lora_dropout", search.double(0.0, 0.5)),
        ("bias", search.categorical(["none", "all"])),
        ("target_modules", search.categorical([["q_proj", "v_proj"], "all-linear"])),
        ("use_rslora", search.categorical([True, False])),
        ("use_dora", search.categorical([True, False])),
        ("init_lora_weights", search.categorical([True, "gaussian"])),
        ("modules_to_save", search.categorical([["embed_tokens"], None])),
    ],
)
def test_range_gets_through_lora_config(field: str, made: Any) -> None:
    assert object_fields(lora(**{field: made}), section="lora").values == {field: made.study_value}


def test_defaults_are_left_out() -> None:
    found = object_fields(
        arguments(num_train_epochs=3, learning_rate=5e-5, weight_decay=0.5), section="train"
    )
    assert (dict(found.values), dict(found.translated), dict(found.ignored)) == (
        {"weight_decay": 0.5},
        {},
        {},
    )
    assert object_fields(lora(r=8, lora_alpha=16), section="lora").values == {"lora_alpha": 16}
    assert object_fields(lora(target_modules={"v_proj", "q_proj"}), section="lora").values == {
        "target_modules": ["q_proj", "v_proj"]
    }


def test_fields_without_effect_are_kept_apart() -> None:
    found = object_fields(
        arguments(
            output_dir="results",
            save_strategy="no",
            disable_tqdm=True,
            bf16=True,
            use_cpu=True,
            warmup_steps=0.1,
        ),
        section="train",
    )
    assert dict(found.ignored) == {
        "output_dir": "results",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,  # set by transformers itself where use_cpu is
    }
    assert dict(found.translated) == {"bf16": True, "use_cpu": True}
    assert dict(found.values) == {"warmup_steps": 0.1}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: (arguments(use_liger_kernel=True), "train"),
            "training_parameters.use_liger_kernel=True: is not supported",
        ),
        (lambda: (arguments(push_to_hub=True), "train"), "use `hpotune export`"),
        (lambda: (arguments(auto_find_batch_size=True), "train"), "write global_batch_size"),
        (lambda: (lora(use_qalora=True), "lora"), "lora_config.use_qalora=True: is not supported"),
        (lambda: ({"r": 8}, "lora"), "lora_config: is a dict; needs a peft.LoraConfig"),
        (
            lambda: (lora(), "train"),
            "training_parameters: is a LoraConfig; needs a transformers.TrainingArguments",
        ),
    ],
)
def test_unsupported_fields_are_refused(make: Any, said: str) -> None:
    given, section = make()
    with pytest.raises(StudyFileError) as caught:
        object_fields(given, section=section)
    assert said in str(caught.value)
