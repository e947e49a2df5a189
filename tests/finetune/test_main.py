"""The process: what it leaves behind when it ends well, and when it does not."""

from __future__ import annotations

import signal
from pathlib import Path

import torch

from hpotune.finetune.__main__ import _failure, main
from hpotune.finetune.model import hub
from hpotune.finetune.output import Report
from hpotune.finetune.trial_errors import DataError, NotFinite, TruthFailure
from hpotune.records.trial import Failure, TrialResult
from tests.finetune.conftest import result_of, start


def test_a_failing_trial_says_why_and_exits_with_1(make_spec, monkeypatch, capsys):
    monkeypatch.setattr(hub, "prepare", lambda **_: None)  # it must come before datasets is imported
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    spec = make_spec(data={"columns": {"output": "nope"}})
    file = Path(spec.folder) / "spec.json"
    file.write_text(spec.model_dump_json())
    assert main(file) == 1
    result = result_of(spec)
    assert (result.state, result.failure.cause) == ("failed", "data")
    assert "no column 'nope'; the data has instruction, input, output" in result.failure.message
    assert result.metrics["world_size"] == 1
    assert result.metrics["process_hours"] > 0
    assert result.metrics["peak_memory_gb"] > 0
    assert "Traceback" in capsys.readouterr().err


def test_a_rank_that_fails_hands_in_its_failure(make_spec):
    spec = make_spec(lora={"init_lora_weights": False})
    assert start(spec, processes=2).wait(timeout=300) == 1
    assert result_of(spec).failure.cause == "truth"


def test_a_failure_of_rank_0_does_not_replace_the_one_that_stands(tmp_path):
    def told(rank: int, state: str, cause: str | None = None) -> None:
        report = Report(folder=tmp_path, number=1, first_one=rank == 0, started=0.0)
        failure = Failure(cause=cause, message="m") if cause else None
        report.hand_in(report.result(state, failure=failure))

    def stands() -> TrialResult:
        return TrialResult.model_validate_json((tmp_path / "result.json").read_text())

    told(0, "paused")
    told(3, "failed", "oom")
    assert stands().state == "paused"
    told(0, "failed", "oom")
    told(0, "failed", "unknown")
    assert stands().failure.cause == "oom"


def test_causes_of_failures():
    assert _failure(torch.OutOfMemoryError("CUDA out of memory")).cause == "oom"
    assert _failure(NotFinite("x")).cause == "nan"
    assert _failure(TruthFailure("x")).cause == "truth"
    assert _failure(DataError("x")).cause == "data"
    assert _failure(OSError("no such model")).cause == "user"
    assert _failure(RuntimeError("boom")).cause == "unknown"
    assert "peak of" in _failure(MemoryError()).message
