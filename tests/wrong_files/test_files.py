"""Wrong paths, functions and commands: one error with line and rule."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.fixtures.wrong_studies import COMMAND, FINETUNE, FUNCTION, HELLASWAG, Row, edit

FILES = [
    Row(
        "path:",
        "path: row.jsonl",
        "row.jsonl); paths are relative to the study file; did you mean 'rows.jsonl'?",
    ),
    Row(
        "path:",
        "path: ~no-such-user/rows.jsonl",
        "has no home folder for '~no-such-user'; write the whole path",
    ),
    Row("path:", "path: ./absent", "data.path='./absent' does not exist"),
    Row(
        "path:", "path: some/folder/of/rows", "is neither a file here nor a Hugging Face id (NAMESPACE/NAME)"
    ),
    Row("path:", "path: notes.txt", "is not a data file; needs one of .json, .jsonl, .csv, .tsv, .parquet"),
    Row(
        "path:",
        "path: broken.jsonl",
        "broken.jsonl: line 1 (row 0): Expecting value (character 1); correct that line",
    ),
    Row("path:", "path: broken.json", "broken.json: line 1 (row 0): '1' is not an object {...}"),
    Row("path:", "path: empty.csv", "empty.csv: is empty; its first line needs the names of the columns"),
    Row(
        "path:",
        "mixture: {a: {path: rows.jsonl}, b: {path: ./absent}}",
        "data.mixture.b.path='./absent' does not exist",
    ),
    Row(
        "path:",
        "mixture: {a: {path: rows.jsonl}, b: {path: rows.jsonl, prompt: text}}",
        "data.mixture.b.prompt: column 'text' is not in",
    ),
    Row(
        "path:",
        "mixture: {a: {path: rows.jsonl, wieght: 1}}",
        "data.mixture.a.wieght: unknown key; did you mean 'weight'?",
    ),
    Row(
        "path:",
        "mixture: {a: {path: rows.jsonl, weight: {float: [0, 1]}}, b: {path: rows.jsonl, weight: 0}}",
        "mixture: all weights are 0, also at an end of their ranges; needs one above 0",
    ),
    Row(
        "path:",
        "mixture: {a: {path: rows.jsonl, weight: {float: [-1, 1]}}}",
        "data.mixture.a.weight=-1.0 needs 0.0 or more",
    ),
    Row(
        "path:",
        "mixture: {a: {path: rows.jsonl, weight: {float: [0.1, 1]}}}",
        "the objective train_loss is measured on these rows",
        ("objective:", "objective: {metric: train_loss}"),
    ),
    Row("prompt:", "prompt: text", "column 'text' is not in"),
    Row("prompt:", "prompt: '{instruktion}: '", "column 'instruktion' is not in"),
    Row(
        "prompt:",
        "prompt: chat",
        "needs the column messages, or instruction and output",
        ("path:", "path: other.csv"),
    ),
    Row("prompt:", "prompt: alpaca", "did you mean 'outputs'?", ("path:", "path: other.csv")),
    Row(
        "prompt:",
        "prompt: alpaca",
        "name others with data.columns: {ours: theirs}",
        ("path:", "path: near.json"),
    ),
    Row("+data:", "columns: {output: answer}", "column 'answer' is not in"),
    Row(
        "+data:",
        "columns: {ouput: output}",
        "data.columns.ouput is not a column that 'alpaca' reads; did you mean 'output'?",
    ),
    Row("model:", "model: {path: ./models/llama}", "model.path='./models/llama' does not exist"),
    Row("model:", "model: {path: /dev/null/model}", "model.path='/dev/null/model' does not exist"),
    Row(
        "model:", "model: {path: rows.jsonl}", "needs a folder with config.json and weights, or a .gguf file"
    ),
    Row("model:", "model: {path: folder}", "has no config.json"),
    Row(
        "model:",
        "model: {path: 'package:llm_absent/model.gguf'}",
        "is in the package 'llm_absent', which is not installed",
    ),
    Row(
        "path:",
        "path: {choice: [rows.jsonl, ./absent]}",
        "data.path='./absent' does not exist",
        HELLASWAG,
    ),
    Row(
        "path:",
        "path: s3://bucket",
        "data.path='s3://bucket' is no address of objects; needs s3://BUCKET/KEY",
    ),
    Row("+", "data_root: s3://bucket/rows", "data_root='s3://bucket/rows' is in an S3 bucket; download it"),
    Row("+", "env: {container: images/own.sif}", "env.container='images/own.sif' does not exist"),
    Row(
        "prompt:",
        "response: '{output}'\nprompt: '{instruction}'",
        "data.response: is not used by sequence_classification",
        ("model:", "model: {path: a/b, task: sequence_classification}"),
    ),
    Row(
        "model:",
        "model: {path: a/b, num_labels: 3}",
        "model.num_labels: needs task: sequence_classification",
    ),
    Row("+score:", "include_path: my_tasks", "score.include_path='my_tasks' does not exist"),
    Row("+score:", "include_path: rows.jsonl", "is a file; needs a folder"),
    Row("+", "data_root: /absent/root", "data_root='/absent/root' does not exist"),
    Row("+", "env: {venv: folder}", "is not a virtual environment (no bin/activate)"),
]
FUNCTIONS = [
    Row("+", "keep: {best: 3}", "keep: is used by fine-tuning only, not by `python:`; remove it"),
    Row("+", "env: {offline: false}", "env.offline: is used by fine-tuning only"),
    Row(
        "objective:",
        "objective: {metric: answer_rate}",
        "score.objective.metric: 'answer_rate' has no known direction; add `direction: maximize`",
    ),
    Row("objective:", "objective: {metric: loss_of_trust}", "'loss_of_trust' has no known direction"),
    Row(
        "python:",
        "python: other.py:bowl",
        "other.py: No such file or directory); paths are relative to the study file",
    ),
    Row("python:", "python: own.py:bowls", "has no function 'bowls'; did you mean 'bowl'? valid: bowl"),
    Row("python:", "python: own.py", "needs FILE.py:FUNCTION"),
    Row(
        "+params:",
        "layers.size: 3",
        "params: 'layers.size' cannot be the name of a Python parameter; rename it, for example layers_size, or add "
        "**others to bowl",
    ),
    Row(
        "+params:", "learning-rate: {float: [0, 1]}", "rename it, for example learning_rate, or add **others"
    ),
    Row("+params:", "lambda: {float: [0, 1]}", "rename it, for example _lambda, or add **others to bowl"),
    Row("+params:", "'': {float: [0, 1]}", "params: '' cannot be a name; needs at least one character"),
    Row(
        "x:", "x: {choice: [.inf, 1]}", 'params.x: {"choice": [Infinity, 1]} has a number that is not finite'
    ),
    Row("x:", "x: [1, {y: .nan}]", "has a number that is not finite; a trial gets finite numbers only"),
    Row("python:", "python: notes.txt:bowl", "is not Python ("),
    Row(
        "python:",
        "python: own.py:bowl",
        "python and command exclude each other; keep one",
        ("+", "command: echo"),
    ),
    Row("python:", "python: own.py:bowl", "python and lora exclude each other", ("+", "lora: {r: 8}")),
    Row("score:", "score:", "lm-eval tasks need a model, and python has none", ("+score:", "test: [mmlu]")),
    Row("name:", "name: wrong", "model and data: are missing; fine-tuning needs both", ("python:", "")),
]
COMMANDS = [
    Row(
        "command:",
        'command: "echo {lr}"',
        "command reads {lr}, which is not under params; valid: kind, width, x",
    ),
    Row("command:", 'command: "echo {kid}"', "did you mean 'kind'?"),
    Row(
        "command:",
        'command: "echo {x"',
        "expected '}' before end of string; write {{ and }} for literal braces",
    ),
    Row("command:", "command: \"awk '{}' {x}\"", "contains {}; needs the name of a param in the braces"),
    Row(
        "command:",
        "command: \"echo '{kind}'\"",
        "command has {kind} inside single quotes, but values are quoted for",
    ),
    Row("command:", "command: 'echo \"{x}\"'", "write {x} bare, or $HPOTUNE_PARAM_X there"),
    Row("command:", "command: echo $(run {x})", "command has {x} inside $(...)"),
    Row("command:", "command: echo it's {x}", "command has {x} inside single quotes"),
    Row("command:", "command: echo {x} it's", "command opens single quotes that nothing closes"),
    Row("command:", 'command: "echo {x:.3f}"', "contains {x:.3f}; needs the name of a param in the braces"),
    Row(
        "command:",
        'command: "echo {width}"',
        "only some trials have it (when); let the program read $HPOTUNE_PARAM_WIDTH",
    ),
    Row("command:", "command: [echo, '{x}']", "command=['echo', '{x}'] needs text"),
    Row("command:", 'command: "echo {kind.b}"', "command reads {kind.b}, which is not under params"),
    Row(
        "+params:",
        "q: 3\nQ: 3  # <--",
        "params: 'q' and 'Q' are both $HPOTUNE_PARAM_Q to the command; rename one",
    ),
    Row("+params:", "a-b: 3\na_b: 3  # <--", "'a-b' and 'a_b' are both $HPOTUNE_PARAM_A_B to the command"),
    Row("+params:", "'a{b': 3", "params: 'a{b' has a brace, so a command cannot name it; rename it"),
    Row(
        "+params:",
        "a: {b: 3}\na.b: {int: [1, 9]}  # <--",
        "params.a.b: two values have this name, one by a key with a dot in it; rename one",
    ),
    Row(
        "command:",
        'command: "echo {opt.lr}"',
        "only some trials have it (when); let the program read $HPOTUNE_PARAM_OPT_LR instead",
        ("+params:", "opt: {lr: {float: [0, 1], when: {params.kind: b}}}"),
    ),
]


@pytest.mark.parametrize("row", FILES, ids=lambda row: row.new.splitlines()[0])
def test_wrong_path_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(FINETUNE, row)


@pytest.mark.parametrize("row", FUNCTIONS, ids=lambda row: row.new.splitlines()[0])
def test_wrong_function_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(FUNCTION, row)


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.new.splitlines()[0])
def test_wrong_command_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(COMMAND, row)


@pytest.mark.parametrize("name", ["rows.jsonl", "other.csv", "own.py", "points.csv"])
def test_fifos_and_devices_are_refused(name, folder, refused):
    text = FUNCTION if name in ("own.py", "points.csv") else edit(FINETUNE, "path:", f"path: {name}")
    if name == "points.csv":
        text += "search: {start_from: points.csv}\n"
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert "study.yaml:" in refused("check", "--static", folder / "study.yaml", code=2)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert "study.yaml:" in refused("check", "--static", folder / "study.yaml", code=2)
