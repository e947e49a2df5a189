"""Secrets in study files are refused with their key, and never repeated."""

from __future__ import annotations

import pytest

from hpotune.checks.study_file import check
from hpotune.errors import StudyFileError
from tests.fixtures.planted_secrets import SECRETS
from tests.fixtures.wrong_studies import COMMAND, edit

KEYS = {
    "env.vars.OTHER": "env: {vars: {OTHER: @@}}",
    "env.setup": "env: {setup: [@@]}",
    "resources.extra": "resources: {extra: {comment: @@}}",
    "params.note": "note: @@",
}


def refused(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StudyFileError) as raised:
        check(tmp_path / "study.yaml")
    return [*raised.value.mistakes]


def quoted(text):
    return "'" + text.replace("'", "''").replace("\n", "\n\n    ") + "'"


def with_value(where, text):
    line = KEYS[where].replace("@@", quoted(text))
    return edit(COMMAND, "+params:", line) if where == "params.note" else f"{COMMAND}{line}\n"


PAIRS = [
    (where, secret)
    for where in KEYS
    for secret in SECRETS
    if where != "params.note" or "variable" not in secret.name  # a param is no shell line
]


@pytest.mark.parametrize(("where", "secret"), PAIRS)
def test_secret_value_is_refused(tmp_path, where, secret):
    found = refused(tmp_path, with_value(where, secret.text))
    assert f" {where}" in found[0]
    assert secret.core not in "\n".join(found)


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "PGPASSWORD",
        "MYSQL_PWD",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_PAT",
        "OPENAI_KEY",
        "PASSWORD_DB",
    ],
)
def test_secret_variable_is_refused(tmp_path, name):
    found = refused(tmp_path, f"{COMMAND}env: {{vars: {{{name}: geheim}}}}\n")
    assert found == [
        f"study.yaml:10: env.vars.{name}: is a secret, and job scripts are readable; export it in ~/.bashrc instead"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "export HF_TOKEN=abc",
        "export A=1 MYSQL_PWD=x",
        "module load a; PGPASSWORD='x y' psql",
        "(MY_API_KEY=x run)",
    ],
)
def test_secret_in_setup_is_refused(tmp_path, line):
    (found,) = refused(tmp_path, f'{COMMAND}env: {{setup: ["{line}"]}}\n')
    assert "a secret, and job scripts are readable" in found
    assert line not in found


@pytest.mark.parametrize(
    "line",
    [
        "export OPENAI_API_KEY=EMPTY",
        "vllm serve m --api-key EMPTY",
        "export HF_TOKEN=$(cat ~/.token)",
        "export PWD=/a",
        "TOKENIZERS_PARALLELISM=false a",
        "hf auth whoami",
    ],
)
def test_setup_without_secret_is_valid(tmp_path, line):
    (tmp_path / "study.yaml").write_text(f'{COMMAND}env: {{setup: ["{line}"]}}\n', encoding="utf-8")
    assert check(tmp_path / "study.yaml").findings == ()


def test_secret_in_command_is_refused(tmp_path):
    (found,) = refused(tmp_path, edit(COMMAND, "command:", 'command: "HF_TOKEN=geheim7 echo {x}"'))
    assert found.startswith("study.yaml:2: command: sets HF_TOKEN, a secret, ")
    assert "geheim7" not in found


def test_secret_in_a_remark_is_refused(tmp_path):
    secret = SECRETS[3]
    (found,) = refused(tmp_path, f"{COMMAND}# my token: {secret.text}\n")
    assert found.startswith("study.yaml:10: the line holds a Hugging Face token, ")
    assert secret.core not in found


@pytest.mark.parametrize("param", ["api_key: geheim7", "hf_token: geheim7", "token: aB3dE5gH7jK9mN1"])
def test_secret_param_is_refused(tmp_path, param):
    (found,) = refused(tmp_path, edit(COMMAND, "+params:", param))
    assert f"params.{param.partition(':')[0]}: is a secret" in found
    assert param.partition(": ")[2] not in found


@pytest.mark.parametrize(
    "param",
    [
        "pad_token: '<pad>'",
        "token: cls",
        "key: text",
        "max_tokens: 512",
        "sort_key: length",
        "caption_key: blip2_caption",
        "api_key: EMPTY",
        "use_auth_token: 'false'",
        "n_pass: 2",
        "TRIGGER_TOKEN: sks",
    ],
)
def test_params_of_texts_are_valid(tmp_path, param):
    (tmp_path / "study.yaml").write_text(edit(COMMAND, "+params:", param), encoding="utf-8")
    assert check(tmp_path / "study.yaml").findings == ()


@pytest.mark.parametrize(
    "variable",
    ["OPENAI_API_KEY: EMPTY", "GOOGLE_APPLICATION_CREDENTIALS: /path/key.json", "JOB_PWD: /scratch/x"],
)
def test_variable_without_secret_is_valid(tmp_path, variable):
    (tmp_path / "study.yaml").write_text(f"{COMMAND}env: {{vars: {{{variable}}}}}\n", encoding="utf-8")
    assert check(tmp_path / "study.yaml").findings == ()


@pytest.mark.parametrize(
    "remark", ["basic meta-llama/Llama-3.2-1B setup", "Authorization: required by owner", "caption_key=text"]
)
def test_remark_without_secret_is_valid(tmp_path, remark):
    (tmp_path / "study.yaml").write_text(f"{COMMAND}# {remark}\n", encoding="utf-8")
    assert check(tmp_path / "study.yaml").findings == ()


def test_other_errors_hide_secrets(tmp_path):
    text = f"{COMMAND}nonsense: {SECRETS[3].text}\nenv: {{vars: {{WANDB_API_KEY: 123456}}}}\n"
    found = "\n".join(refused(tmp_path, text))
    assert "nonsense" in found
    assert SECRETS[3].core not in found
    assert "123456" not in found


def test_older_study_with_a_secret_opens(tmp_path):
    (tmp_path / "study.yaml").write_text(
        f"{COMMAND}env: {{vars: {{OPENAI_KEY: geheim7}}}}\n", encoding="utf-8"
    )
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "resolved.yaml").write_text((tmp_path / "study.yaml").read_text(), encoding="utf-8")
    (note,) = check(tmp_path / "study.yaml").warnings
    assert "env.vars.OPENAI_KEY: is a secret" in note
