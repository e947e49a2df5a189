"""Files that are no study, and all errors of a file together."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hpotune.cli import main
from tests.fixtures.wrong_studies import COMMAND, FINETUNE, FUNCTION, edit

WHOLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "study.yaml:1: has no `key: value` lines; `hpotune init` writes an example"),
    "only remarks": (b"# soon\n", "study.yaml:1: has no `key: value` lines"),
    "a list": (b"- name: a\n", "study.yaml:1: has no `key: value` lines"),
    "one word": (b"study\n", "study.yaml:1: has no `key: value` lines"),
    "a tab": (b"name: a\nbudget:\n\ttrials: 4\n", "study.yaml:3: a tab is used for indentation"),
    "an open bracket": (b"name: a\nbudget: {trials: 4\n", "study.yaml:3: not YAML: "),
    "a lost indentation": (
        b"name: a\n  budget: 4\n",
        "study.yaml:2: not YAML: mapping values are not allowed here",
    ),
    "two documents": (b"name: a\n---\nname: b\n", "study.yaml:2: a second document starts here"),
    "Latin-1": (
        "name: gr\u00f6\u00dfe\n".encode("latin-1"),
        "study.yaml: is not UTF-8 text; needs a YAML file",
    ),
    "a binary file": (bytes(range(256)), "is not UTF-8 text"),
    "a NUL": (b"name: a\nparams: \0\n", "study.yaml:2: contains a control character"),
    "a value inside itself": (b"name: a\nparams: &p {x: *p}\n", "study.yaml:2: params.x contains itself"),
    "a tag": (b"name: !!python/object:os.system a\n", "study.yaml:1: name has the tag"),
}


SEVERAL = """\
name: wrong
model: {path: a/b, dtyp: auto}
data:
  path: absent.jsonl
  max_length: 4
lora:
  r: {int: [64, 4]}
  lora_alpha: {expr: "2 * lora.r"}
train:
  optim: adam
score:
  objective: {metric: eval_los}
budget: {trials: 0}
zz: 1
"""


@pytest.mark.parametrize("text", [FINETUNE, FUNCTION, COMMAND], ids=["finetune", "function", "command"])
def test_unedited_files_are_valid(text, folder, hpotune):
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    assert hpotune("check", "--static", folder / "study.yaml") == (0, [])


@pytest.mark.parametrize(("content", "says"), WHOLE.values(), ids=WHOLE.keys())
def test_file_that_is_no_study(content, says, folder, refused):
    (folder / "study.yaml").write_bytes(content)
    assert says in refused("check", folder / "study.yaml", code=2)


def test_all_errors_are_reported_in_order(folder, hpotune):
    (folder / "study.yaml").write_text(SEVERAL, encoding="utf-8")
    code, lines = hpotune("check", folder / "study.yaml")
    assert code == 2
    found = [line.removeprefix("error: study.yaml:").split("=")[0].split(": ")[:2] for line in lines]
    assert found == [
        ["2", "model.dtyp"],
        ["5", "data.max_length"],
        ["7", "lora.r"],
        ["10", "train.optim"],
        ["12", "score.objective.metric"],
        ["13", "budget.trials"],
        ["14", "zz"],
    ]


def test_json_holds_the_same_errors(folder, capsys, monkeypatch):
    (folder / "study.yaml").write_text(SEVERAL, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["hpotune", "check", str(folder / "study.yaml"), "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    found = json.loads(capsys.readouterr().out)
    assert stop.value.code == 2
    assert found["ok"] is False
    assert len(found["mistakes"]) == 7


def test_process_prints_the_same_error(folder):
    (folder / "study.yaml").write_text(edit(FUNCTION, "budget:", "budget: {trials: 0}"), encoding="utf-8")
    command = [sys.executable, "-m", "hpotune", "check", str(folder / "study.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: study.yaml:8: budget.trials=0 needs 1 or more\n"


def test_missing_parquet_column_is_named(folder, refused):
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="pyarrow is not installed: pip install hpotune[trial]"
    )
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"instruction": ["a"], "answer": ["b"]}), folder / "rows.parquet")
    (folder / "study.yaml").write_text(edit(FINETUNE, "path:", "path: rows.parquet"), encoding="utf-8")
    assert "study.yaml:5: data.prompt: column 'output' is not in" in refused(
        "check", folder / "study.yaml", code=2
    )
    (folder / "rows.parquet").write_bytes(b"PAR2")
    assert "is not Parquet" in refused("check", folder / "study.yaml", code=2)
