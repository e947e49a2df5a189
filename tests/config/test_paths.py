"""Files that a study names, seen from the folder of its file."""

from __future__ import annotations

import pytest

from hpotune.config.paths import resolve, template_names
from hpotune.config.yaml_source import Source


def made_absolute(values, home):
    source, found = resolve(Source(path=home / "study.yaml", values=values, lines={}), home=home)
    return source.values, found


def test_paths_become_absolute_and_ids_stay(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    values = {
        "model": {"path": "meta-llama/Llama-3.2-1B"},
        "data": {"path": "rows.jsonl"},
        "train": {"x": "rows.jsonl"},
    }
    made, found = made_absolute(values, tmp_path)
    assert found == {}
    assert made == {**values, "data": {"path": str(tmp_path / "rows.jsonl")}}


def test_paths_inside_a_choice_become_absolute(tmp_path):
    (tmp_path / "a.csv").write_text("x\n")
    made, _ = made_absolute({"data": {"path": {"choice": ["a.csv", "me/rows"]}}}, tmp_path)
    assert made == {"data": {"path": {"choice": [str(tmp_path / "a.csv"), "me/rows"]}}}


def test_function_name_stays_in_path(tmp_path):
    (tmp_path / "own.py").write_text("from elsewhere import loss\n")
    assert made_absolute({"python": "own.py:loss"}, tmp_path)[0] == {"python": f"{tmp_path / 'own.py'}:loss"}


def test_every_absent_path_is_a_mistake(tmp_path):
    values = {
        "model": {"path": "./m"},
        "data": {"path": "d.csv"},
        "data_root": "root",
        "score": {"include_path": "t"},
    }
    found = made_absolute(values, tmp_path)[1]
    assert set(found) == {("model", "path"), ("data", "path"), ("data_root",), ("score", "include_path")}


def test_venv_path_becomes_absolute(tmp_path):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").touch()
    assert made_absolute({"env": {"venv": "venv"}}, tmp_path)[0] == {"env": {"venv": str(tmp_path / "venv")}}
    assert made_absolute({"env": {"venv": "auto"}}, tmp_path)[1] == {}


def test_container_path_becomes_absolute(tmp_path):
    (tmp_path / "own.sif").touch()
    made, found = made_absolute({"env": {"container": "own.sif"}}, tmp_path)
    assert made == {"env": {"container": str(tmp_path / "own.sif")}}
    assert found == {}
    assert made_absolute({"env": {"container": "docker://python:3.12"}}, tmp_path)[1] == {}
    assert set(made_absolute({"env": {"container": "absent.sif"}}, tmp_path)[1]) == {("env", "container")}


def test_command_names_use_single_braces():
    assert template_names("run {a} --b {b} ${{HOME}} {{x}}") == {"a", "b"}


@pytest.mark.parametrize("text", ["{", "}", "{}", "{a:.2f}", "{a!r}"])
def test_other_braces_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        template_names(text)
