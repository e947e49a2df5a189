"""The reason of an exception, and whose code raised it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.config.yaml_source import plain
from hpotune.records.error_origin import code_lines, error_chain, reason


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def chained(*errors: Exception) -> Exception:
    """The first of them, caused by the second, …."""
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


def beside(outer: Exception, inner: Exception) -> Exception:
    """An exception that was raised while another was handled."""
    outer.__context__ = inner
    return outer


def inner() -> Exception:
    return ValueError("JSON parse error in row 8")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("role"), "KeyError: 'role'"),
        (ValueError(), "ValueError"),
        (ValueError("a:\n\tb"), "ValueError: a: b"),
        (chained(OSError("generating"), inner()), "OSError: generating (ValueError: JSON parse error in row 8)"),
        (chained(OSError("x"), RuntimeError("y"), inner()), "OSError: x (ValueError: JSON parse error in row 8)"),
        (chained(OSError("x"), inner(), RuntimeError()), "OSError: x (ValueError: JSON parse error in row 8)"),
        (chained(OSError("x"), inner(), RuntimeError("x")), "OSError: x"),
        (chained(OSError("failed: JSON parse error in row 8"), inner()), "OSError: failed: JSON parse error in row 8"),
        (beside(OSError("generating"), KeyError("cached")), "OSError: generating"),
        (beside(RuntimeError(), inner()), "RuntimeError (ValueError: JSON parse error in row 8)"),
    ],
)  # fmt: skip
def test_reason_holds_the_inner_one(error: Exception, text: str) -> None:
    assert reason(error) == text


def test_circle_of_causes_ends() -> None:
    first, second = chained(OSError("x"), ValueError("y")), ValueError("y")
    first.__cause__ = second
    second.__cause__ = first
    assert [*error_chain(first)] == [first, second]


def test_lines_belong_to_their_owner() -> None:
    lines = code_lines(caught(lambda: json.loads("{")))
    assert [(line.owner, Path(line.file).name) for line in lines] == [("user", "test_error_origin.py")] * 2
    in_hpotune = code_lines(caught(lambda: plain(None)))[-1]  # type: ignore[arg-type]
    assert (in_hpotune.owner, in_hpotune.text.partition(":")[0]) == (
        "hpotune",
        "hpotune/config/yaml_source.py",
    )
    in_library = code_lines(caught(lambda: pytest.raises(3)))[-1]  # type: ignore[call-overload]
    assert (in_library.owner, in_library.library) == ("library", "_pytest")
