"""Who must act after a failed trial: by whose code raised the error and in which phase, whatever its class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch

from hpotune.finetune.output import TrialOutput
from hpotune.finetune.trial_errors import DataError, NotFinite, SanityCheckFailure, UserError
from hpotune.finetune.trial_failure import failure_of, is_lost_rank
from hpotune.records.error_origin import PACKAGE
from hpotune.records.trial import Failure


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def failure(error: BaseException, phase: str | None = "train") -> Failure:
    return failure_of(error, phase=phase)


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (UserError("lora.r: 0"), "user"),
        (DataError("data.path: x"), "data"),
        (NotFinite("x"), "nan"),
        (SanityCheckFailure("x"), "truth"),
        (caused(DataError("data.path: cannot be read"), FULL), "store"),
        (caused(UserError("model.path: x"), OSError(116, "Stale file handle")), "node"),
        (caused(SanityCheckFailure("x"), torch.OutOfMemoryError("CUDA out of memory")), "oom"),
        (caused(ValueError("x"), MemoryError()), "oom"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "node"),
        (PermissionError(13, "Permission denied", "/cache"), "user"),
        (KeyError("xid"), "unknown"),
        (ValueError("column 'out of memory' is missing"), "unknown"),
    ],
)
def test_cause_of_named_errors(error: Exception, cause: str) -> None:
    assert failure(error).cause == cause


def raised_in(*files: Path | str, error: Exception) -> BaseException:
    """The error as if code of these files, the outermost first, had called each other until the last raised it."""

    def fail() -> object:
        raise error

    call = fail
    for file in reversed(files):
        names: dict[str, Any] = {"call": call}
        exec(compile("def run():\n    return call()", str(file), "exec"), names)
        call = names["run"]
    return _without_this_file(caught(call))


def _without_this_file(error: BaseException) -> BaseException:
    """The error with a traceback that begins and ends in the files given."""
    entries = [tb for tb in _entries(error.__traceback__) if tb.tb_frame.f_code.co_filename != __file__]
    for entry, after in zip(entries, [*entries[1:], None], strict=True):
        entry.tb_next = after
    return error.with_traceback(entries[0])


def _entries(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


ROWS, LOOP = PACKAGE / "finetune/data/prompt.py", PACKAGE / "finetune/training/training_loop.py"
LOADER = PACKAGE / "finetune/model/base_model.py"
JINJA, TORCH = (
    "/venv/lib/site-packages/jinja2/environment.py",
    "/venv/lib/site-packages/torch/nn/functional.py",
)
REMOTE = "/cache/modules/transformers_modules/repo/modeling_own.py"
KEY = KeyError("role")


@pytest.mark.parametrize(
    ("files", "error", "phase", "cause", "says"),
    [
        ([ROWS], KEY, "data", "data", "(while preparing the rows; at hpotune/finetune/data/prompt.py:2)"),
        ([ROWS, JINJA], KEY, "data", "data", "rows; in jinja2, called at hpotune/finetune/data/prompt.py:2)"),
        ([LOADER, JINJA], KEY, "data", "library", "in jinja2, called at hpotune/finetune/model/base_model.py:2)"),
        ([LOADER, TORCH], ImportError("no tiktoken"), "data", "library", "in torch, called at"),
        ([LOADER], ImportError("no tiktoken"), "load", "library", "(while loading the base model; at"),
        ([LOOP, TORCH], AttributeError("x"), "train", "library", "(while training; in torch, called at hpotune"),
        ([LOOP, TORCH, REMOTE], KEY, "train", "user", "(while training; at modeling_own.py:2)"),
        ([LOOP, TORCH, REMOTE, TORCH], RuntimeError("shapes"), "train", "user", "at modeling_own.py:2)"),
        ([ROWS, REMOTE], KEY, "data", "user", "(while preparing the rows; at modeling_own.py:2)"),
        ([REMOTE, LOOP], KEY, None, "unknown", "KeyError: 'role' (at hpotune/finetune/training/training_loop.py:2)"),
        ([LOOP], IndexError("x"), "score", "unknown", "IndexError: x (while scoring; at hpotune"),
        ([LOOP, TORCH], RuntimeError("CUDA out of memory"), "train", "oom", "(while training; in torch, called at"),
    ],
)  # fmt: skip
def test_cause_is_where_it_was_raised(
    files: list[Path | str], error: Exception, phase: str | None, cause: str, says: str
) -> None:
    found = failure(raised_in(*files, error=error.with_traceback(None)), phase)
    assert found.cause == cause
    assert says in found.message


def test_failed_phase_is_the_innermost(tmp_path: Path) -> None:
    output = TrialOutput(folder=tmp_path, number=0, is_main=False, started=0.0)

    def nested() -> None:
        with output.phase("train"), output.phase("checkpoint"):
            raise ValueError

    with pytest.raises(ValueError), output.phase("load"):  # noqa: PT011 - only the phase matters
        nested()
    assert output.failed_phase == "checkpoint"


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [
        (
            "[/__w/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [::1]:6836: Connection reset by peer",
            True,
        ),
        ("[../third_party/gloo/pair.cc:600] Connection closed by peer [127.0.0.1]:4711", True),
        (
            "NCCL error, ncclRemoteError: A call failed possibly due to a network error or a remote process exiting",
            True,
        ),
        ("Connection reset by peer", False),
        ("gloo: tensors must have identical size", False),
    ],
)
def test_lost_rank_is_no_cause(text: str, is_lost: bool) -> None:
    assert is_lost_rank(caused(RuntimeError("a collective failed"), RuntimeError(text))) == is_lost
