"""Which names and texts are secrets, and that a message does not repeat them."""

from __future__ import annotations

import pytest

from hpotune.config.secret_text import MASK, is_secret_name, masked, secrets_in
from tests.fixtures.planted_secrets import SECRETS


@pytest.mark.parametrize(
    "name",
    [
        "PGPASSWORD", "MYSQL_PWD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_PAT", "PGPASS", "OPENAI_KEY", "HFTOKEN",
        "PASSWORD_DB", "SSHPASS", "api_key", "WANDB_API_KEY", "CLIENT_SECRET", "DB_PASS", "GOOGLE_CREDENTIALS",
    ],
)  # fmt: skip
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "PGPASSFILE", "PWD", "OLDPWD", "TOKENIZERS_PARALLELISM", "AWS_ACCESS_KEY_ID", "KEYBOARD", "PATH", "COMPASS",
        "pad_token", "EOS_TOKEN", "max_new_token", "sort_key", "KEY_FILE", "num_tokens", "tokens", "lr",
    ],
)  # fmt: skip
def test_similar_names_are_no_secrets(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.name)
def test_secret_is_found_by_its_form(secret):
    assert [*secrets_in(f"before {secret.text} behind", assigned=True)]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.name)
def test_secret_is_masked(secret):
    shown = masked(f"study.yaml:3: command='run {secret.text}' needs more")
    assert secret.core not in shown
    assert MASK in shown
    assert shown.startswith("study.yaml:3: ")


@pytest.mark.parametrize(
    "text",
    [
        "export HF_TOKEN=$(cat ~/.token)", 'HF_TOKEN="$MINE" run', "python train.py --pad_token='<pad>' --lr {lr}",
        "--token={token}", "meta-llama/Llama-3.2-1B", "postgresql://me@host/db", "http://host:8080/x@y", "hf_transfer",
        "task-force-2024-something", "git@github.com:a/b.git", "ssh://git@host:22/x", "--tokenizer gpt2",
        "model.pad_token=<pad>", "sk-learn-extension", "Basic statistics", "postgresql://me:$PW@h/db", "-u a.py:main",
        "https://user@host/x", "docker://nvcr.io/nvidia/pytorch:24.01", "sig=0.5", "key=value", "TOKENIZERS_FAST=1",
        "password=None", "wandb login", "curl -u $ME https://host", "eos_token=</s>", "a" * 5000, "e" * 40,
    ],
)  # fmt: skip
def test_other_text_is_no_secret(text):
    assert [*secrets_in(text, assigned=True)] == []
    assert len(text) > 4000 or masked(text) == text
