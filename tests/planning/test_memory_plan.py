"""`plan` and `check` on the memory of the trials beside that of a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpotune.checks.row_lengths import keep_lengths, row_lengths
from hpotune.config.load import Study, load_study
from hpotune.planning.memory_plan import memory_note, memory_plan
from hpotune.records.rehearsal_record import RehearsalResult
from tests.config.memory.conftest import LLAMA_3B


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a study of the 3B model; keyword arguments replace sections."""
    monkeypatch.setenv("HPOTUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA_3B))
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n' * 40)

    def written(**sections: object) -> Path:
        values = {
            "name": "s",
            "model": {"path": "model"},
            "data": {"path": "rows.jsonl"},
            "lora": {"r": {"int": [4, 64]}},
            "train": {"learning_rate": 1e-4, "per_device_train_batch_size": 16, "global_batch_size": 16},
            "score": {"objective": {"metric": "eval_loss"}, "record": []},
            "budget": {"trials": 2},
            "resources": {"gpus": "a100:1"},
            **sections,
        }
        file = tmp_path / "s.yaml"
        file.write_text(yaml.safe_dump(values))
        return file

    return written


@pytest.fixture
def study(write, tmp_path: Path):
    def loaded(**sections: object) -> Study:
        return load_study(write(model={"path": str(tmp_path / "model")}, **sections))

    return loaded


def test_verbs_say_what_does_not_fit(write) -> None:
    file = write()

    def shown(verb: str, *words: str) -> dict:
        command = [sys.executable, "-m", "hpotune", verb, str(file), *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    memory = shown("plan")["memory"]
    assert (memory["fits"], memory["gpu_gb"], memory["largest"]["micro_batch"]) == (False, 40, 16)
    assert memory["largest"]["peak"] > memory["first"]["peak"] > memory["first"]["weights"] > 5.9
    [warning] = [text for text in shown("check", "--static")["warnings"] if "GiB" in text]
    assert "train.activation_checkpointing: auto" in warning


def test_checkpointing_fits(study) -> None:
    train = {"learning_rate": 1e-4, "per_device_train_batch_size": 16, "gradient_checkpointing": True}
    plan = memory_plan(study(train=train))
    assert plan is not None
    assert (plan.fits, memory_note(plan)) == (True, "")


def test_rehearsed_rows_lower_the_estimate(study) -> None:
    made = study()
    before = memory_plan(made)
    keep_lengths(made, RehearsalResult(longest=60, counted=[20, 10]))
    assert row_lengths(made)(made.base()).counted == (20, 10)
    after = memory_plan(made)
    assert before is not None
    assert after is not None
    assert before.largest is not None
    assert after.largest is not None
    assert after.largest.estimate.peak < before.largest.estimate.peak / 3
    assert after.fits


def test_unknown_memory_is_no_number(study) -> None:
    plan = memory_plan(study(lora={"r": 8, "use_dora": True}))
    assert plan is not None
    assert (plan.fits, plan.largest, plan.unknown) == (None, None, "lora.use_dora is set")
    assert memory_plan(study(resources={"gpus": 1})).fits is None  # type: ignore[union-attr]
