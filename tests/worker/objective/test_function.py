"""The function objective: its answers and its failures, each in the process that really runs it."""

from __future__ import annotations

import pytest


def test_number_is_the_value(evaluate):
    assert evaluate(function="return x * 2", params={"x": 1.5}).values == [3.0]


def test_dict_gives_metrics_and_errors(evaluate):
    objective = [{"metric": "loss"}, {"metric": "acc"}]
    result = evaluate(
        function="return {'loss': 1, 'acc': 0.5, 'acc_stderr': 0.1, 'other': 7}", objective=objective
    )
    assert (result.values, result.stderrs, result.metrics["other"]) == ([1.0, 0.5], [None, 0.1], 7)


def test_file_may_define_dataclasses(evaluate, tmp_path):
    (tmp_path / "home").mkdir()
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: float\n"
    (tmp_path / "home" / "kinds.py").write_text(text)
    body = (
        "exec(open('kinds.py').read(), globals()); import pickle; return pickle.loads(pickle.dumps(A(x))).x"
    )
    assert evaluate(function=body, params={"x": 0.5}).values == [0.5]


def test_numpy_number_is_a_number(evaluate):
    result = evaluate(function="import numpy; return {'loss': numpy.float32(0.5), 'n': numpy.int64(3)}")
    assert (result.values, result.metrics) == ([0.5], {"loss": 0.5, "n": 3})


@pytest.mark.parametrize(
    ("body", "cause", "message"),
    [
        (
            "return 'high'",
            "user",
            "the objective returned 'high' (str); it must return a number, or {'loss': NUMBER}",
        ),
        ("return None", "user", "the objective returned None; it must return a number"),
        ("pass", "user", "the objective returned None"),
        ("return True", "user", "the objective returned True (bool)"),
        ("return [0.5, 0.6]", "user", "the objective returned list of 2"),
        (
            "import numpy; return numpy.zeros((2, 3))",
            "user",
            "the objective returned ndarray of shape (2, 3)",
        ),
        ("return 10**400", "user", "the objective returned a huge int"),
        ("return (x for x in ())", "user", "the objective returned an object of type generator"),
        (
            "return {'los': 1}",
            "user",
            "the objective returned a mapping without 'loss'; its keys are los, perhaps 'los'",
        ),
        ("return {}", "user", "the objective returned a mapping without 'loss'; it is empty"),
        (
            "return {'loss': 'high'}",
            "user",
            "the objective returned 'high' (str) for 'loss'; it must be a number",
        ),
        ("raise MemoryError", "oom", "MemoryError (at own.py:2)"),
        ("import sys; sys.exit(0)", "user", "its process ended with exit code 0 before a value was returned"),
        ("import os; os._exit(0)", "user", "its process ended with exit code 0 before a value was returned"),
        ("return float('nan')", "nan", "loss is nan"),
        ("return float('inf')", "nan", "loss is inf"),
        ("raise KeyError('lr')", "user", "KeyError: 'lr'"),
        ("raise ValueError('two\\nlines')", "user", "ValueError: two lines"),
        ("raise MemoryError('full')", "oom", "MemoryError: full (at own.py:2)"),
        ("raise RuntimeError('CUDA out of memory. Tried')", "oom", "RuntimeError: CUDA out of memory. Tried"),
        ("raise SystemExit(3)", "user", "its process ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed", "its process was killed by SIGKILL"),
    ],
)
def test_failure_has_cause_and_message(evaluate, body, cause, message):
    result = evaluate(function=body)
    assert (result.state, result.failure.cause) == ("failed", cause)
    assert result.failure.message.startswith(message)


def test_sys_exit_names_its_line(evaluate):
    message = evaluate(function="import sys; sys.exit()").failure.message
    assert message.endswith("the function called sys.exit(None) at own.py:2")


def test_other_values_are_left_out(evaluate):
    body = (
        "import numpy as np; from decimal import Decimal; from fractions import Fraction\n"
        "    return {'loss': Decimal('0.5'), 'curve': np.ones(3), 'note': 'a', 'none': None, 'n': Fraction(1, 4), 1: 2,"
        " 'many': 10**400, 'infinite': float('inf'), 'nested': {'a': 1}}"
    )
    result = evaluate(function=body)
    assert (result.values, result.metrics) == ([0.5], {"loss": 0.5, "n": 0.25, "1": 2, "infinite": None})
    assert result.left_out == {
        "curve": "ndarray of shape (3,)",
        "note": "'a' (str)",
        "none": "None",
        "many": "a huge int",
        "nested": "dict of 1",
    }


def test_function_imports_modules_beside_it(evaluate, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "beside.py").write_text("import os\nVALUE = float(os.path.exists('own.py'))\n")
    assert evaluate(function="import beside; return beside.VALUE").values == [1.0]


def test_names_that_are_no_identifiers_arrive(evaluate):
    body = 'return others["optimizer.lr"] + others["opt"]["lr"]'
    assert evaluate(function=body, params={"optimizer.lr": 0.25, "opt": {"lr": 1}}).values == [1.25]


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_module_in_home_shadows_no_library(evaluate, tmp_path, mode):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    for name in ("pydantic", "json", "hpotune", "yaml"):
        (home / f"{name}.py").write_text("raise SystemExit(7)\n")
    (home / "mine.py").write_text("A = 3\n")
    home.chmod(mode)
    result = evaluate(function="import mine, os; return mine.A + (os.getcwd() != " + repr(str(home)) + ")")
    assert result.values == [3.0], result.failure


def test_names_that_cannot_be_shown(evaluate):
    """Empty, with spaces around or with a line end: no table, figure or tracker could name them."""
    result = evaluate(
        function="return {'loss': 0.5, '': 1.0, 'a\\nb': 2.0, 'loss_stderr ': 3.0, 'zeta': 4.0}"
    )
    assert result.metrics == {"loss": 0.5, "zeta": 4.0}
    assert sorted(result.left_out) == ["", "a\nb", "loss_stderr "]


STARTS_A_STUDY = (
    "import hpotune\nhpotune.Study.load('none.yaml').run()\nraise RuntimeError('below the study')"
)


def test_program_may_start_the_study(evaluate):
    assert evaluate(function=f"return x\n{STARTS_A_STUDY}", params={"x": 1.5}).values == [1.5]


def test_function_below_the_study_is_named(evaluate):
    failure = evaluate(function=f"return x\ndel f\n{STARTS_A_STUDY}").failure
    assert failure.cause == "user"
    assert "own.py has no function 'f' above the line where it starts the study" in failure.message
