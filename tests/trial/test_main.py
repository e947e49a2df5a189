"""The process: what it leaves behind when it ends well, and when it does not."""

from __future__ import annotations

import signal
from pathlib import Path

import torch

from hpotune.trial import hub
from hpotune.trial.__main__ import _failure, main
from hpotune.trial.errors import DataError, NotFinite, TruthFailure
from tests.trial.conftest import result_of, start


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
    assert "Traceback" in capsys.readouterr().err


def test_a_rank_that_fails_hands_in_its_failure(make_spec):
    spec = make_spec(lora={"init_lora_weights": False})
    assert start(spec, processes=2).wait(timeout=300) == 1
    assert result_of(spec).failure.cause == "truth"


def test_causes_of_failures():
    assert _failure(torch.OutOfMemoryError("CUDA out of memory")).cause == "oom"
    assert _failure(NotFinite("x")).cause == "nan"
    assert _failure(TruthFailure("x")).cause == "truth"
    assert _failure(DataError("x")).cause == "data"
    assert _failure(OSError("no such model")).cause == "user"
    assert _failure(RuntimeError("boom")).cause == "unknown"
    assert "peak of" in _failure(MemoryError()).message
