from __future__ import annotations

import dataclasses
import subprocess
import sys

import peft
import pytest
import transformers

from hpotune.config import supported_fields


def names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_training_arguments_are_supported_or_refused():
    known = names(transformers.TrainingArguments)
    assert known - supported_fields.HONOURED - supported_fields.REFUSED.keys() == set()
    assert known >= supported_fields.HONOURED
    assert not supported_fields.HONOURED & supported_fields.REFUSED.keys()


def test_lora_fields_are_supported_or_refused():
    for name in names(peft.LoraConfig):
        assert (supported_fields.check_lora_key(name) is None) == (name not in supported_fields.REFUSED_LORA)


def test_fields_need_no_library_import():
    code = (
        "import sys; from hpotune.config import supported_fields as s; s.train_fields(); s.lora_fields();"
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
    assert part in (supported_fields.check_train_key(key) or "")


@pytest.mark.parametrize("key", ["learning_rate", "global_batch_size", "sgd_momentum", "warmup_steps"])
def test_an_honoured_key_is_no_complaint(key):
    assert supported_fields.check_train_key(key) is None
