"""The trial process: its result and exit code for success and for each kind of failure."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpotune.finetune.__main__ import _failure, main
from hpotune.finetune.model import hub
from hpotune.finetune.output import TrialOutput
from hpotune.finetune.trial_errors import DataError, NotFinite, SanityCheckFailure
from hpotune.records.failure_causes import FULL_DISK_EXIT
from hpotune.records.trial import Failure, TrialResult
from tests.fixtures.tiny_trials import result_of, start_trial


def test_failing_trial_exits_with_1(make_spec, monkeypatch, capsys):
    monkeypatch.setattr(hub, "prepare_environment", lambda **_: None)  # datasets is imported already
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    spec = make_spec(data={"columns": {"output": "nope"}})
    file = Path(spec.folder) / "spec.json"
    file.write_text(spec.model_dump_json())
    assert main(file) == 1
    result = result_of(spec)
    assert (result.state, result.failure.cause) == ("failed", "data")
    assert "column 'nope' is not in the data" in result.failure.message
    assert result.metrics["world_size"] == 1
    assert result.metrics["process_hours"] > 0
    assert result.metrics["peak_memory_gb"] > 0
    assert "Traceback" in capsys.readouterr().err


def test_failing_rank_writes_result(make_spec):
    spec = make_spec(lora={"init_lora_weights": False})
    assert start_trial(spec, processes=2).wait(timeout=300) == 1
    assert result_of(spec).failure.cause == "truth"


def test_first_failure_is_kept(tmp_path):
    def write(rank: int, state: str, cause: str | None = None) -> None:
        output = TrialOutput(folder=tmp_path, number=1, is_main=rank == 0, started=0.0)
        failure = Failure(cause=cause, message="m") if cause else None
        output.write_result(output.result(state, failure=failure))

    def written() -> TrialResult:
        return TrialResult.model_validate_json((tmp_path / "result.json").read_text())

    write(0, "paused")
    write(3, "failed", "oom")
    assert written().state == "paused"
    write(0, "failed", "oom")
    write(0, "failed", "unknown")
    assert written().failure.cause == "oom"


def test_causes_of_failures():
    assert _failure(torch.OutOfMemoryError("CUDA out of memory")).cause == "oom"
    assert _failure(NotFinite("x")).cause == "nan"
    assert _failure(SanityCheckFailure("x")).cause == "truth"
    assert _failure(DataError("x")).cause == "data"
    assert _failure(RuntimeError("boom")).cause == "unknown"
    assert "peak of" in _failure(MemoryError()).message


FULL = """
import errno, os
from hpotune.finetune.__main__ import ended

def run():
    raise OSError(errno.{name}, os.strerror(errno.{name}))

ended(run)
"""


@pytest.mark.parametrize(
    ("name", "code"), [("ENOSPC", FULL_DISK_EXIT), ("EDQUOT", FULL_DISK_EXIT), ("ENOENT", 1)]
)
def test_full_disk_has_exit_code(name, code):
    done = subprocess.run([sys.executable, "-c", FULL.format(name=name)], capture_output=True, check=False)
    assert done.returncode == code
    assert b"Traceback" in done.stderr
