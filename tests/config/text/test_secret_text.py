"""Which names and texts are secrets, and that a message does not repeat them."""

from __future__ import annotations

import pytest

from hpotune.config.text.secret_text import MASK, is_secret_name, masked, may_be_secret, secrets_in
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


HARMLESS = [
    "/models/hf_mistral7b", "/data/hf_checkpoint2", "/models/hf_Llama31_8BInstruct", "hf_dataset2024/train",
    "# basic meta-llama/Llama-3.2-1B setup", "# Authorization: required by owner",
    "# bearer of meta-llama/Llama-3.2-1B",
    "# basic setup-of-2024-runs", "Authorization: Basic authentication", "# x-api-key: ask-the-owner",
    "podman run --user 1000:1000 image", "docker run --user me:staff7 image", "podman run -u 1000:1000 a",
    "srun --uid 1 -u a:b", "curl -u 1000:1000 https://host", "curl https://host; podman run --user me:staff",
    "run n_pass=2 --lr {lr}", "caption_key=text python t.py", "rng_key=0", "state_key=params", "add_token=true",
    "use_auth_token=false", "use_auth_token=False", "file_pat=train-*.jsonl", "file_pat=train-000*-of-00010.jsonl",
    "trigger_token=sks", "TRIGGER_TOKEN=sks", "JOB_PWD=/scratch/x", "PASSWORD_FILE=/x", "PASSWORD_FILE=secrets/pw.txt",
    "GOOGLE_APPLICATION_CREDENTIALS=/path/to/key-2024.json", "OPENAI_API_KEY=EMPTY", "OPENAI_API_KEY='EMPTY' run",
    "OPENAI_API_KEY=dummy", "HF_TOKEN=None", "HF_TOKEN=~/.token", "CREDENTIALS=./credentials.json", "MAX_AUTH=5",
    "caption_key=blip2_caption", "id_key=created_at_2024", "auth=Qwen2VLForCausalLM", "token=llama3-8b-bpe-v2",
    "--token bpe", "--token gpt2", "--token=cls", "--api-key EMPTY", "--api-key=dummy", "--secret keep", "--token word",
    "--token true", "--api-key none", "--no-password 1", "--password-file /x", "api_key=EMPTY", "password=/run/pw",
    "setenv TOKENIZERS_PARALLELISM false", "setenv TOKENIZERS_PARALLELISM 0", "setenv HF_TOKEN $MINE",
    "setenv HF_TOKEN_PATH ~/.token", "postgresql://hpotune_production_user@db/x", "ssh://deploy-of-project-2024-a@h/x",
    "/home/u/sk-learn-baseline-v2", "sk-Llama-3-8B-baseline-v2", "sk-learn-1.5-Ridge-L2-baseline2",
    "r8_llama_3_8b_instruct_lora_adapter", "xapp-token-bucket-1", "xoxo-hugs-and-kisses",
    "npm_config_of_the_project_tools",
    "gsk_pharma_dataset_for_training_2024", "nvapi-client-of-the-training-run-v2", "ghs_checkpoint2024", "SG.docs",
    "ASIAPACIFICREGION", "glrt-of-the-laboratory", "lsv2_pt_notes_on_the_second_version_of", "wandb login --relogin",
    "wandb login my_team_of_researchers",
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_names_like_secrets_are_allowed(text):
    assert [*secrets_in(text, assigned=True)] == []
    assert masked(text) == text


REFUSED = [
    ("https_proxy=http://me:@@@proxy:3128", "geheim"), ("PGPASS=@@", "geheim"), ("GITHUB_PAT=@@", "geheim"),
    ("OPENAI_KEY=@@", "geheim"), ("HFTOKEN=@@", "geheim"), ("PASSWORD_DB=@@ run", "hunter2"), ("MYSQL_PWD=@@", "zz"),
    ("PGPASSWORD=@@", "2468"), ("password=@@", "hunter2"), ("api_key=@@", "geheim"), ("client_secret=@@", "geheim"),
    ("my_token=@@", "aB3dE5gH7jK9mN1"), ("my_key=@@", "5f2d7a1c9b3e4f60"),
    ("AWS_SECRET_ACCESS_KEY=@@", "/aB3dE5gH7jK9" * 3),
    ("hf auth login --token @@", "geheim"), ("huggingface-cli login --add --token=@@", "geheim"),
    ("--token @@", "geheim-Op5"),
    ("--token '@@'", "geheim-Op5"), ("--hf-token @@", "geheim"), ("--db-password @@", "hunter2"),
    ("--api-key @@", "geheim"),
    ("--secret @@", "geheim-1234"), ("--client-secret @@", "geheim"), ("Authorization: Basic @@", "dXNlcjpwYXNz"),
    ('{"Authorization": "Bearer @@"}', "geheim123"), ("Authorization: token @@", "geheim123"),
    ("Bearer @@", "b3Jlcl90b2tlbl8xMjM0"), ("x-api-key: @@", "geheim123"), ("wget --user me:@@ https://h", "geheim"),
    ("curl -s --proxy-user me:@@ https://h", "geheim"), ("setenv HF_TOKEN @@", "geheim"),
    ("setenv DB_PASSWORD @@", "x1"),
    ("https://@@@git.example/a", "0a1b2c3d" * 5), ("@@", "sk" + "-" + "abcdef1234567890abcdef"),
    ("@@", "sk" + "-or-v1-" + "0a1b2c3d" * 8), ("@@", "sk" + "-ant-api03-" + "Zy9Xw8Vu7T-aB3_dE5gH7"),
    ("@@", "r8" + "_" + "aB3dE5gH7j" * 4), ("@@", "xapp" + "-1-A0B1C2D3-123456-0a1b2c"),
    ("@@", "nvapi" + "-" + "aB3dE5gH7j" * 6),
]  # fmt: skip


@pytest.mark.parametrize(("form", "core"), REFUSED)
def test_secret_is_found_and_masked(form, core):
    text = form.replace("@@", core)
    assert [*secrets_in(text, assigned=True)]
    assert core not in masked(text)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "abc", True), ("hf_token", "abc", True), ("my_token", "abc", False), ("api_key", "EMPTY", False),
        ("OPENAI_KEY", "12345", False), ("OPENAI_KEY", "123456", True), ("PASSWORD", "12345", True),
        ("password", "true", False), ("key", "llama3-8b-instruct", False), ("key", "aB3dE5gH7jK9", True),
    ],
)  # fmt: skip
def test_values_of_secret_names(name, value, secret):
    assert may_be_secret(name, value) is secret


REPEATED = ["curl ", "authorization:", "curl -u a:", "-eyJaaaaaaaa", "TOKEN=", "my_key=", "login --token "]


@pytest.mark.parametrize("part", REPEATED)
def test_long_text_is_searched(part):
    text = part * (2**17 // len(part))  # minutes where a pattern is quadratic
    assert len([*secrets_in(f"{text}\nHF_TOKEN=x", assigned=True)]) >= 1
