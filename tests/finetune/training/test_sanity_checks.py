"""Each sanity check finds its defect; a trial without defects passes all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpotune.finetune.model import adapter
from hpotune.finetune.trial_errors import NotFinite, SanityCheckFailure
from tests.fixtures.tiny_trials import run_here

OFF = {"identity": False, "moved": False, "reload": False}
FEW = {"max_steps": 2}
SINGLE = {"dtype": "float32"}  # peft starts pissa and olora in float32 at the widest


def test_trial_passes_every_check(make_spec):
    checks = run_here(make_spec(train=FEW)).checks
    assert {name: record["ok"] for name, record in checks.items()} == dict.fromkeys(
        ("identity", "moved", "reload"), True
    )
    assert checks["identity"]["base_loss"] == checks["identity"]["fresh_loss"]


def test_disabled_checks_are_skipped(make_spec):
    assert run_here(make_spec(train=FEW, spec={"checks": OFF})).checks == {}


def test_noise_in_new_adapter_fails_identity(make_spec):
    lora = {"init_lora_weights": False}  # peft's own way of filling lora_B with noise
    with pytest.raises(SanityCheckFailure, match="identity: a new adapter changes the base model's loss"):
        run_here(make_spec(lora=lora, train=FEW))
    assert (
        run_here(make_spec(lora=lora, train=FEW, spec={"checks": OFF | {"moved": True}})).state == "finished"
    )


@pytest.mark.parametrize("start", ["pissa", "olora", "orthogonal", "gaussian"])
def test_compensating_initialisations_pass_identity(make_spec, start):
    spec = make_spec(model=SINGLE, lora={"init_lora_weights": start}, train=FEW)
    record = run_here(spec).checks["identity"]
    assert record["fresh_loss"] == pytest.approx(record["base_loss"], rel=1e-5)


def test_identity_compares_with_unchanged_base(make_spec, monkeypatch):
    attach_adapter = adapter.attach_adapter

    def defective(base, config, **options):
        model = attach_adapter(base, config, **options)
        for name, parameter in model.named_parameters():
            if "q_proj.base_layer" in name:
                parameter.data += 0.5
        return model

    monkeypatch.setattr(adapter, "attach_adapter", defective)
    with pytest.raises(SanityCheckFailure, match="identity"):
        run_here(make_spec(model=SINGLE, lora={"init_lora_weights": "pissa"}, train=FEW))


def test_unchanged_adapter_fails_moved(make_spec):
    with pytest.raises(SanityCheckFailure, match="did not change the adapter"):
        run_here(make_spec(train=FEW | {"learning_rate": 0.0}))


def test_nan_adapter_fails_moved(make_spec, monkeypatch):
    copy_adapter = adapter.copy_adapter
    calls = []

    def defective(model):
        calls.append(1)
        return {n: t * float("nan") if len(calls) == 2 else t for n, t in copy_adapter(model).items()}

    monkeypatch.setattr(adapter, "copy_adapter", defective)
    with pytest.raises(NotFinite, match="not finite after training"):
        run_here(make_spec(train=FEW))


@pytest.mark.parametrize("defect", ["noise", "missing"])
def test_wrong_file_fails_reload(make_spec, monkeypatch, defect):
    save_adapter = adapter.save_adapter

    def defective(model, folder, ranks, **options):
        save_adapter(model, folder, ranks, **options)
        file = Path(folder) / adapter.WEIGHTS
        tensors = load_file(file)
        name = next(name for name in tensors if "lora_B" in name)
        if defect == "noise":
            tensors[name] += torch.randn_like(tensors[name])
        else:
            del tensors[name]
        save_file(tensors, file)

    monkeypatch.setattr(adapter, "save_adapter", defective)
    with pytest.raises(SanityCheckFailure, match="reload: the adapter in"):
        run_here(make_spec(train=FEW))


def test_saved_adapter_is_readable_by_others(make_spec):
    spec = make_spec(train=FEW)
    run_here(spec)
    files = list((Path(spec.folder) / "adapter").iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o644}
