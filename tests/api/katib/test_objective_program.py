"""A function as a program of its own: it runs, and what cannot stand alone is refused with the reason."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpotune.api.katib.objective_program import objective_program
from hpotune.errors import StudyFileError


def printing(parameters: dict[str, Any]) -> None:
    import math

    print(f"loss={math.sqrt(float(parameters['x']))}")


def returning(parameters: dict[str, Any]) -> dict[str, float]:
    return {"loss": parameters["x"] * 2, "size": 3}


def using_outside(parameters: dict[str, Any]) -> float:
    return math.sqrt(parameters["x"])


def with_two(parameters: dict[str, Any], more: int) -> None:
    print(parameters, more)


@functools.cache
def decorated(parameters: dict[str, Any]) -> None:
    print(parameters)


class Holder:
    def method(self, parameters: dict[str, Any]) -> None:
        print(self, parameters)


def enclosing() -> Any:
    scale = 3

    def inner(parameters: dict[str, Any]) -> float:
        return scale * parameters["x"]

    return inner


def output(
    objective: Any, params: dict[str, Any], *, printed: bool = True, resource: str | None = None, **env: str
) -> str:
    text = objective_program(objective, study="s", metric="loss", printed=printed, resource=resource)
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "HPOTUNE_PARAMS": json.dumps(params), **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_program_prints_what_it_prints() -> None:
    assert output(printing, {"x": 4}) == "loss=2.0"


def test_returned_values_are_printed() -> None:
    assert output(returning, {"x": 4}).splitlines() == ["loss=8.0", "size=3.0"]
    assert json.loads(output(returning, {"x": 4}, printed=False)) == {"loss": 8, "size": 3}
    assert output(returning, {"x": 4}, RANK="1") == ""


def test_rung_is_part_of_resource() -> None:
    assert (
        output(returning, {"x": 9}, resource="x", HPOTUNE_RUNG_BUDGET="0.333333").splitlines()[0]
        == "loss=6.0"
    )


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (lambda parameters: 1, "is a lambda, whose source cannot stand"),
        (Holder().method, "is a method"),
        (functools.partial(with_two, more=1), "is a partial"),
        (with_two, "needs one argument, the dict of the parameters"),
        (enclosing(), "inner uses scale of the function around it"),
        (using_outside, "using_outside uses math of the file around it"),
        (functools.wraps(printing)(lambda parameters: 1), "decorator|source|cannot stand"),
    ],
    ids=["lambda", "method", "partial", "two arguments", "closure", "outside", "wrapped"],
)
def test_unfit_functions_are_refused(objective: Any, said: str) -> None:
    with pytest.raises(StudyFileError, match=said):
        objective_program(objective, study="s", metric="loss", printed=True)


def test_decorated_function_is_refused() -> None:
    with pytest.raises(StudyFileError, match=r"is a _lru_cache_wrapper|has a decorator"):
        objective_program(decorated, study="s", metric="loss", printed=True)


def test_unknown_source_is_refused(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec("def typed(parameters):\n    return 1\n", names)
    with pytest.raises(StudyFileError, match="the source of typed is not known"):
        objective_program(names["typed"], study="s", metric="loss", printed=True)
