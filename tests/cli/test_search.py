"""algorithms and ask-tell by the command line."""

from __future__ import annotations

import json
import sys

import pytest

from hpotune.cli import main
from hpotune.search.algorithms.registry import MODULES, algorithm


def said(capsys, monkeypatch, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a verb."""
    monkeypatch.setattr(sys, "argv", ["hpotune", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_algorithms_lists_each_with_what_it_says_of_itself(capsys, monkeypatch):
    code, out, _ = said(capsys, monkeypatch, "algorithms", "--json")
    told = {one["name"]: one for one in json.loads(out)}
    assert code == 0
    assert list(told) == list(MODULES)
    assert all(one["when"] and one["cost"] and one["parallel"] and one["source"] for one in told.values())
    assert {name: one["cannot"] for name, one in told.items()} == {n: algorithm(n).cannot for n in MODULES}


def test_the_table_of_algorithms_has_a_line_for_each(capsys, monkeypatch):
    code, out, _ = said(capsys, monkeypatch, "algorithms")
    firsts = {line.split(" ")[0] for line in out.splitlines()}
    assert (code, set(MODULES) - firsts) == (0, set())


def test_one_algorithm_is_shown_with_its_options(capsys, monkeypatch):
    _, out, _ = said(capsys, monkeypatch, "algorithms", "tpe")
    assert all(option in out for option in algorithm("tpe").options)


def test_an_unknown_algorithm_is_told_with_the_nearest(capsys, monkeypatch):
    code, _, err = said(capsys, monkeypatch, "algorithms", "soboll")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean 'sobol'?" in err


@pytest.mark.parametrize(("options", "told"), [("{", "is no JSON"), ("[]", "needs an object")])
def test_options_that_are_no_object_are_told(options, told, capsys, monkeypatch):
    code, _, err = said(capsys, monkeypatch, "ask-tell", "--options", options)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
