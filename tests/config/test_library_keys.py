from __future__ import annotations

import dataclasses
import subprocess
import sys

import peft
import pytest
import transformers

from hpotune.config import library_keys


def names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_training_arguments_are_supported_or_refused():
    known = names(transformers.TrainingArguments)
    assert known - library_keys.HONOURED - library_keys.REFUSED.keys() == set()
    assert known >= library_keys.HONOURED
    assert not library_keys.HONOURED & library_keys.REFUSED.keys()


def test_lora_fields_are_supported_or_refused():
    for name in names(peft.LoraConfig):
        assert (library_keys.check_lora_key(name) is None) == (name not in library_keys.REFUSED_LORA)


def test_fields_need_no_library_import():
    code = (
        "import sys; from hpotune.config import library_keys as s; s.train_fields(); s.lora_fields();"
        "sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("learning_rat", "did you mean 'learning_rate'"),
        ("fsdp", "fully_shard"),
        ("output_dir", "hpotune sets it"),
        ("warmup_ratio", "warmup_steps: 0.1"),
    ],
)
def test_unsupported_key_error_has_next_step(key, part):
    assert part in (library_keys.check_train_key(key) or "")


@pytest.mark.parametrize("key", ["learning_rate", "global_batch_size", "sgd_momentum", "warmup_steps"])
def test_an_honoured_key_is_no_complaint(key):
    assert library_keys.check_train_key(key) is None
