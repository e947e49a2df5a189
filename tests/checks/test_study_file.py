"""What a check says of the user's own function, and of what is hardly meant."""

from __future__ import annotations

import pytest

from hpotune.checks.study_file import check
from hpotune.errors import StudyFileError
from tests.fixtures.wrong_studies import FINETUNE


@pytest.fixture
def check_function(make_study):
    """What the check of a study says, with this text as the function's file."""

    def check_(text: str, **sections: object) -> list[str]:
        file = make_study(**sections).source.path
        (file.parent / "own.py").write_text(text)
        try:
            return check(file).warnings
        except StudyFileError as error:
            return list(error.mistakes)

    return check_


SOMETIMES = {"k": {"choice": ["a", "b"]}, "x": {"float": [0, 1], "when": {"params.k": "a"}}}


@pytest.mark.parametrize(
    ("text", "params", "says"),
    [
        ("def bowl(x, y): pass", None, "python: bowl needs 'y', which is not under params; valid: x"),
        ("def bowl(x, *, y): pass", None, "python: bowl needs 'y'"),
        (
            "def bowl(layer): pass",
            {"layers": {"int": [1, 2]}},
            "needs 'layer', which is not under params; did you mean 'la",
        ),
        ("def bowl(y): pass", {}, "python: bowl needs 'y', which is not under params; params is empty"),
        (
            "def bowl(x=0): pass",
            {"z": {"int": [1, 2]}},
            "params.z is not a parameter of bowl; valid: x, or add **others",
        ),
        ("def bowl(k, x): pass", SOMETIMES, "python: bowl needs 'x', which only some trials have (when)"),
        ("def bowl(x, /): pass", None, "has positional-only parameters"),
    ],
)
def test_wrong_function_parameters_are_errors(check_function, text, params, says):
    found = check_function(text, **({"params": params} if params is not None else {}))
    assert any(line.startswith("study.yaml:") and says in line for line in found), found


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("def bowl(x, y=1, *, z=2): pass", None),
        ("def bowl(**all): pass", None),
        ("def bowl(k, x=None): pass", SOMETIMES),
        ("from functools import cache\n@cache\ndef bowl(*a, **b): pass", None),
        ("import functools\ndef bowl(q): pass\nbowl = functools.partial(bowl, q=1)", None),
        ("from elsewhere import bowl", None),
    ],
)
def test_matching_function_is_valid(check_function, text, params):
    assert check_function(text, **({"params": params} if params else {})) == []


def test_trials_without_range_are_warned_of(check_function):
    text = "def bowl(x): return x"
    (warning,) = check_function(text, params={"x": 1})
    assert warning.startswith("study.yaml:")
    assert "nothing is searched (the file has no range), so 6 trials do the same" in warning
    assert check_function(text, params={"x": 1}, budget={"trials": 2}) == []
    assert check_function(text) == []


@pytest.mark.parametrize(
    ("prompt", "chosen", "says"),
    [
        ("chat", "auto", None),
        ("alpaca", "auto", None),
        ("chat", "true", None),
        ("chat", "false", "in plain text, but the rows are trained in the chat template (data.prompt)"),
        ("alpaca", "true", "in the chat template, but the rows are trained in plain text (data.prompt)"),
    ],
)
def test_other_form_of_scoring_is_noted(prompt, chosen, says, tmp_path):
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    edited = FINETUNE.replace("prompt: alpaca", f"prompt: {prompt}").replace(
        "objective: {metric: eval_loss}",
        f"objective: {{task: hellaswag, metric: acc_norm}}\n  chat_template: {chosen}",
    )
    (tmp_path / "study.yaml").write_text(edited)
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    found = [line for line in check(tmp_path / "study.yaml").warnings if "chat_template" in line]
    if says is None:
        assert found == []
    else:
        assert found[0].startswith("study.yaml:15: score.chat_template: the tasks are asked ")
        assert says in found[0]
