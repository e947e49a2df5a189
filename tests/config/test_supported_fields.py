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


def test_every_field_of_the_installed_training_arguments_is_honoured_or_refused():
    known = names(transformers.TrainingArguments)
    assert known - supported_fields.HONOURED - supported_fields.REFUSED.keys() == set()
    assert known >= supported_fields.HONOURED
    assert not supported_fields.HONOURED & supported_fields.REFUSED.keys()


def test_every_field_of_the_installed_lora_config_passes_or_has_a_reason():
    for name in names(peft.LoraConfig):
        assert (supported_fields.check_lora_key(name) is None) == (name not in supported_fields.REFUSED_LORA)


def test_the_fields_are_read_without_importing_the_libraries():
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
def test_a_key_that_would_be_ignored_is_a_complaint_with_a_way_out(key, part):
    assert part in (supported_fields.check_train_key(key) or "")


@pytest.mark.parametrize("key", ["learning_rate", "global_batch_size", "sgd_momentum", "warmup_steps"])
def test_an_honoured_key_is_no_complaint(key):
    assert supported_fields.check_train_key(key) is None
