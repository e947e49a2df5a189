"""Each truth check meets the defect it is there for; a healthy trial passes all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpotune.finetune.model import adapter
from hpotune.finetune.trial_errors import NotFinite, TruthFailure
from tests.finetune.conftest import here

OFF = {"identity": False, "moved": False, "reload": False}
FEW = {"max_steps": 2}
SINGLE = {"dtype": "float32"}  # peft starts pissa and olora in float32 at the widest


def test_a_healthy_trial_passes_every_check(make_spec):
    checks = here(make_spec(train=FEW)).checks
    assert {name: record["ok"] for name, record in checks.items()} == dict.fromkeys(
        ("identity", "moved", "reload"), True
    )
    assert checks["identity"]["base_loss"] == checks["identity"]["fresh_loss"]


def test_a_check_that_is_off_is_not_made(make_spec):
    assert here(make_spec(train=FEW, spec={"checks": OFF})).checks == {}


def test_noise_in_a_fresh_adapter_is_no_identity(make_spec):
    lora = {"init_lora_weights": False}  # peft's own way of filling lora_B with noise
    with pytest.raises(TruthFailure, match="identity: a fresh adapter changes the base's loss"):
        here(make_spec(lora=lora, train=FEW))
    assert here(make_spec(lora=lora, train=FEW, spec={"checks": OFF | {"moved": True}})).state == "finished"


@pytest.mark.parametrize("start", ["pissa", "olora", "orthogonal", "gaussian"])
def test_starts_that_compensate_in_the_base_are_identities(make_spec, start):
    spec = make_spec(model=SINGLE, lora={"init_lora_weights": start}, train=FEW)
    record = here(spec).checks["identity"]
    assert record["fresh_loss"] == pytest.approx(record["base_loss"], rel=1e-5)


def test_a_start_that_changes_the_base_is_compared_with_the_base_before(make_spec, monkeypatch):
    attached = adapter.attach

    def spoiled(base, config, **options):
        model = attached(base, config, **options)
        for name, parameter in model.named_parameters():
            if "q_proj.base_layer" in name:
                parameter.data += 0.5
        return model

    monkeypatch.setattr(adapter, "attach", spoiled)
    with pytest.raises(TruthFailure, match="identity"):
        here(make_spec(model=SINGLE, lora={"init_lora_weights": "pissa"}, train=FEW))


def test_training_that_moves_nothing_is_told(make_spec):
    with pytest.raises(TruthFailure, match="left the adapter as it was"):
        here(make_spec(train=FEW | {"learning_rate": 0.0}))


def test_an_adapter_of_nan_is_told(make_spec, monkeypatch):
    copied = adapter.copy_of
    calls = []

    def spoiled(model):
        calls.append(1)
        return {n: t * float("nan") if len(calls) == 2 else t for n, t in copied(model).items()}

    monkeypatch.setattr(adapter, "copy_of", spoiled)
    with pytest.raises(NotFinite, match="not finite after training"):
        here(make_spec(train=FEW))


@pytest.mark.parametrize("defect", ["noise", "missing"])
def test_a_file_that_differs_from_memory_is_told(make_spec, monkeypatch, defect):
    saved = adapter.save

    def spoiled(model, folder, ranks):
        saved(model, folder, ranks)
        file = Path(folder) / adapter.WEIGHTS
        tensors = load_file(file)
        name = next(name for name in tensors if "lora_B" in name)
        if defect == "noise":
            tensors[name] += torch.randn_like(tensors[name])
        else:
            del tensors[name]
        save_file(tensors, file)

    monkeypatch.setattr(adapter, "save", spoiled)
    with pytest.raises(TruthFailure, match="reload: the adapter in"):
        here(make_spec(train=FEW))


def test_a_kept_adapter_can_be_read_by_others(make_spec):
    spec = make_spec(train=FEW)
    here(spec)
    files = list((Path(spec.folder) / "adapter").iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o644}
