"""What a trial chooses by its memory, and that no choice changes what is trained; in float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hpotune.config.memory.point_memory import MEMORY_FILE as FILE
from hpotune.finetune.output import TrialOutput
from hpotune.finetune.training import training_loop
from hpotune.finetune.training.loss import Row
from hpotune.finetune.training.memory_choice import job_memory_left, measured_ratio, memory_choice
from tests.fixtures.tiny_trials import ONE_RANK, adapter_distance, run_here

EXACT = 1e-12  # float64 sums in another order
AUTO = {"per_device_train_batch_size": "auto", "activation_checkpointing": "auto"}
ROWS = [Row(ids=list(range(3, 43)), targets=[-100] * 30 + list(range(33, 43)))] * 20


def choose(spec, available, rows=ROWS):
    output = TrialOutput(folder=Path(spec.folder), number=1, is_main=True, started=0.0)
    found = memory_choice(spec, rows, ranks=ONE_RANK, output=output, available=available)
    (Path(spec.folder) / FILE).unlink(missing_ok=True)
    return found, output


def test_less_memory_needs_smaller_passes(make_spec) -> None:
    spec = make_spec(train=AUTO)
    found, output = choose(spec, 2**40)
    assert (found.micro_batch, found.checkpointing) == (8, False)
    assert output.metrics["memory_estimate_gb"] == found.estimate / 1e9
    smaller, _ = choose(spec, found.estimate - 1)
    assert (smaller.micro_batch, smaller.checkpointing) == (4, False)
    least, _ = choose(spec, 1)
    assert (least.micro_batch, least.checkpointing) == (1, True)
    assert choose(make_spec("fixed"), 1)[0] is None


def test_measured_peaks_correct_later_choices(make_spec) -> None:
    one, other = make_spec("one", train=AUTO), make_spec("other", train=AUTO)
    found, _ = choose(one, 2**40)
    (Path(one.folder) / FILE).write_text(json.dumps({"estimate_bytes": 1000, "peak_bytes": 1100}))
    assert measured_ratio(Path(one.folder).parent) == 1.1
    (Path(one.folder) / "low").mkdir()
    (Path(one.folder) / "low" / FILE).write_text(json.dumps({"estimate_bytes": 1000, "peak_bytes": 400}))
    assert measured_ratio(Path(one.folder)) == 1.0  # its first steps may not have held the longest row
    assert choose(other, found.estimate)[0].micro_batch == 4
    with_dropout = make_spec("dropout", train=AUTO, lora={"lora_dropout": 0.1})
    assert choose(with_dropout, 2**40)[0].ratio == 1.0


def test_other_models_take_a_safe_choice(make_spec) -> None:
    found, output = choose(make_spec(train=AUTO, lora={"use_dora": True}), 2**40)
    assert (found.micro_batch, found.checkpointing, found.estimate) == (8, True, None)
    assert "lora.use_dora is set" in output.metrics["warnings"][0]


def test_fixed_keys_stay_without_estimate(make_spec) -> None:
    train = {"per_device_train_batch_size": 4, "activation_checkpointing": "auto"}
    found, _ = choose(make_spec("a", train=train, lora={"use_dora": True}), 2**40)
    assert (found.micro_batch, found.checkpointing) == (4, True)
    train = {"per_device_train_batch_size": "auto", "activation_checkpointing": False}
    found, _ = choose(make_spec("b", train=train, lora={"use_dora": True}), 2**40)
    assert (found.micro_batch, found.checkpointing) == (8, False)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_memory_of_job_is_a_limit(tmp_path: Path, kind: str) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    proc.write_text("4:memory:/slurm/job_7\n1:cpu:/other\n" if kind == "v1" else "0::/slurm/job_7\n")
    base = root / "memory" if kind == "v1" else root
    names = ("limit_in_bytes", "usage_in_bytes") if kind == "v1" else ("max", "current")
    for folder, limit in ((base / "slurm", 9000), (base / "slurm/job_7", 5000)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, number in zip(names, (limit, 1000), strict=True):
            (folder / f"memory.{name}").write_text(f"{number}\n")
    assert job_memory_left(proc=proc, root=root) == 4000
    assert job_memory_left(proc=tmp_path / "none", root=root) is None


def test_chosen_values_keep_the_result(make_spec) -> None:
    plain, auto = make_spec("plain"), make_spec("auto", train=AUTO)
    run_here(plain)
    earlier = {"micro_batch": 2, "activation_checkpointing": True, "estimate_bytes": 9, "available_bytes": 9}
    file = Path(auto.folder) / FILE
    file.write_text(json.dumps(earlier | {"ratio": 1.0, "reason": ""}))
    result = run_here(auto)
    assert adapter_distance(plain, auto) < EXACT
    assert (result.metrics["micro_batch"], result.metrics["activation_checkpointing"]) == (2, True)
    assert json.loads(file.read_text())["peak_bytes"] == result.metrics["first_steps_peak_gb"] * 1e9 > 1e6


def test_trial_without_memory_halves_its_passes(make_spec, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = make_spec("small", train={"per_device_train_batch_size": 2}), make_spec("large")
    run_here(small)
    collate = training_loop.collate

    def limited(rows, **others):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return collate(rows, **others)

    monkeypatch.setattr(training_loop, "collate", limited)
    result = run_here(large)
    assert adapter_distance(small, large) == 0
    assert result.metrics["micro_batch"] == 2
    assert len(result.metrics["warnings"]) == 1
