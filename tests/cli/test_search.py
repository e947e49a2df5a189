"""`algorithms` and `ask-tell` by the command line."""

from __future__ import annotations

import json
import sys

import pytest

from hpotune.cli import main
from hpotune.search.algorithms.registry import MODULES, algorithm


def called(capsys, monkeypatch, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a verb."""
    monkeypatch.setattr(sys, "argv", ["hpotune", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_algorithms_describe_themselves(capsys, monkeypatch):
    code, out, _ = called(capsys, monkeypatch, "algorithms", "--json")
    listed = {one["name"]: one for one in json.loads(out)}
    assert code == 0
    assert list(listed) == list(MODULES)
    assert all(one["when"] and one["cost"] and one["parallel"] and one["source"] for one in listed.values())
    assert {name: one["cannot"] for name, one in listed.items()} == {n: algorithm(n).cannot for n in MODULES}


def test_table_has_a_line_for_each(capsys, monkeypatch):
    code, out, _ = called(capsys, monkeypatch, "algorithms")
    firsts = {line.split(" ")[0] for line in out.splitlines()}
    assert (code, set(MODULES) - firsts) == (0, set())


def test_one_algorithm_shows_its_options(capsys, monkeypatch):
    _, out, _ = called(capsys, monkeypatch, "algorithms", "tpe")
    assert all(option in out for option in algorithm("tpe").options)


def test_unknown_algorithm_names_the_nearest(capsys, monkeypatch):
    code, _, err = called(capsys, monkeypatch, "algorithms", "soboll")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean 'sobol'?" in err


@pytest.mark.parametrize(("options", "error"), [("{", "is not JSON"), ("[]", "needs an object")])
def test_options_must_be_an_object(options, error, capsys, monkeypatch):
    code, _, err = called(capsys, monkeypatch, "ask-tell", "--options", options)
    assert (code, err.count("\n")) == (2, 1)
    assert error in err
