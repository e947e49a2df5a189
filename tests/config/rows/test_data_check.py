"""What the static check finds in the columns of a study's data."""

from __future__ import annotations

import json

import pytest

from hpotune.config.rows.data_check import data_mistakes
from hpotune.config.schema.study_config import PointConfig


def point(tmp_path, **data) -> PointConfig:
    score = {"objective": {"metric": "eval_loss"}}
    model = {"path": "a/b", "task": data.pop("task", "causal_lm")}
    return PointConfig.model_validate(
        {"model": model, "data": {"path": str(tmp_path / "rows.csv"), **data}, "score": score}
    )


@pytest.mark.parametrize(
    ("header", "data", "missing"),
    [
        ("instruction,output", {}, []),
        ("instruction,answer", {}, ["output"]),
        ("instruction,answer", {"columns": {"output": "answer"}}, []),
        ("question", {"prompt": "text"}, ["text"]),
        ("question,reply", {"prompt": "Q: {question} {\"json\": 1}", "response": "{reply}"}, []),
        ("question", {"prompt": "Q: {question}", "response": "{reply}"}, ["reply"]),
        ("messages", {"prompt": "chat"}, []),
        ("dialog", {"prompt": "chat", "columns": {"conversations": "dialog"}}, []),
        ("messages,functions", {"prompt": "chat", "columns": {"tools": "functions"}}, []),
        ("text,label", {"prompt": "text", "task": "sequence_classification"}, []),
        ("text,stars", {"prompt": "text", "task": "sequence_classification"}, ["label"]),
        ("instruction,label", {"task": "sequence_classification"}, []),
    ],
)  # fmt: skip
def test_missing_prompt_columns_are_errors(header, data, missing, tmp_path):
    (tmp_path / "rows.csv").write_text(header + "\n")
    errors = [text for _, text in data_mistakes(point(tmp_path, **data), data_root=None)]
    assert [f"column {name!r}" in text for name, text in zip(missing, errors, strict=True)] == [True] * len(
        missing
    )


ROW = {"input": "x", "output": "red"}
PROMPT = {"prompt": "Message: {input}\nCategory:", "response": " {output}"}


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def found_in(folder, name, content, **data):
    """The mistakes of a study whose data is a file with this content."""
    (folder / name).write_bytes(content)
    made = point(folder, path=str(folder / name), **(PROMPT | data))
    return [(key[:2], text) for key, text in data_mistakes(made, data_root=None)]


@pytest.mark.parametrize(
    ("response", "nearest"),
    [
        (" {output.text}", "did you mean 'output'? valid: input, output"),
        (" {output-clean}", "did you mean 'output'? valid: input, output"),
        (" {ouput}", "did you mean 'output'? valid: input, output"),
        (" { output }", "write {output}"),
        (" {output:.2f}", "did you mean 'output'?"),
        (" {output!r}", "did you mean 'output'?"),
        (" {Output Name}", "valid: input, output"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_placeholders_need_a_column(response, nearest, kind, tmp_path):
    content = {"csv": b"input,output\nx,red\n", "jsonl": jsonl(ROW), "json": json.dumps([ROW]).encode()}[kind]
    ((key, text),) = found_in(tmp_path, f"rows.{kind}", content, response=response)
    assert key == ("data", "response")
    assert text.startswith(f"data.response: column {response[2:-1]!r} is not in {tmp_path / 'rows.'}{kind}; ")
    assert nearest in text


@pytest.mark.parametrize(
    ("name", "content", "data"),
    [
        ("r.csv", b"input,Queue Name\nx,red\n", {"response": " {Queue Name}"}),
        ("r.jsonl", jsonl({"input": "x", "a": {"b": {"c": "red"}}}), {"response": '{"queue": "{a.b.c}"}'}),
        ("r.jsonl", jsonl({"input": "x"}, {"input": "y", "a": {"b": 1}}), {"response": "{a.b}"}),
        ("r.csv", b"input,a.b\nx,red\n", {"response": "{a.b}"}),
        ("r.jsonl", jsonl({"chat": [{"role": "user", "content": "x"}]}),
         {"prompt": "chat", "response": None, "columns": {"messages": "chat"}}),
        ("r.jsonl", jsonl({"q": {"text": "x"}, "a": "y"}),
         {"prompt": "chat", "response": None, "columns": {"instruction": "q.text", "output": "a"}}),
        ("r.csv", "\ufeffinput,output\nx,red\n".encode(), {}),
        ("r.jsonl", b"\xef\xbb\xbf" + jsonl(ROW), {}),
        ("r.jsonl", b"\n\n" + jsonl(ROW), {}),
        ("r.csv", b"\n\ninput,output\nx,red\n", {}),
        ("r.jsonl", jsonl({"output": "red", "other": 1}, ROW), {}),
        ("r.csv", b"input;output\nx;red\n", {}),
        ("r.csv", "input,output\nx,red\n".encode("utf-16"), {}),
        ("r.tsv", b"input\toutput\nx\tred\n", {}),
        ("r.json", b'[\n{"input": "x", "output": "red"}]', {}),
        ("r.json", jsonl(ROW), {}),
    ],
    ids=range(16),
)  # fmt: skip
def test_right_data_has_no_mistake(name, content, data, tmp_path):
    assert found_in(tmp_path, name, content, **data) == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.csv", "input,output\nfür,red\n".encode("latin-1"), "r.csv: line 2: is not UTF-8 (byte 0xFC)"),
        ("r.jsonl", jsonl(ROW) + b'{"input": "x",}\n', "r.jsonl: line 2 (row 1): "),
        ("r.csv", b'input,output\n"x,red\n', "r.csv: line 2: a cell opens with a quote"),
        ("r.csv", b"\n", "r.csv: is empty; its first line needs the names of the columns"),
    ],
)
def test_unreadable_files_are_named(name, content, says, tmp_path):
    ((key, text),) = found_in(tmp_path, name, content)
    assert key == ("data", "path")
    assert f"data.path: {tmp_path}/{says}" in text


def test_renamed_columns_are_looked_up(tmp_path):
    ((key, text),) = found_in(tmp_path, "r.jsonl", jsonl(ROW), columns={"output": "a.b"})
    assert key == ("data", "columns")
    assert text.startswith("data.columns.output: column 'a.b' is not in ")


def test_only_the_first_rows_are_read(tmp_path):
    wrong_end = jsonl(ROW | {"input": "x" * 2**20}) + b"no json\n"
    assert found_in(tmp_path, "r.jsonl", wrong_end) == []


def test_data_root_folder_is_checked(tmp_path):
    (tmp_path / "me" / "rows").mkdir(parents=True)
    (tmp_path / "me" / "rows" / "train-0.jsonl").write_text('{"text": "a"}\n')
    found = list(data_mistakes(point(tmp_path, path="me/rows", prompt="{txt}"), data_root=str(tmp_path)))
    assert "column 'txt' is not in" in found[0][1]
    assert "did you mean 'text'?" in found[0][1]


def test_hub_data_is_not_checked(tmp_path):
    assert list(data_mistakes(point(tmp_path, path="me/rows"), data_root=None)) == []
