"""Each sanity check finds its defect; a trial without defects passes all of them."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from hpotune.finetune import pipeline
from hpotune.finetune.model import adapter
from hpotune.finetune.training import sanity_checks
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.trial_errors import NotFinite, SanityCheckFailure
from tests.fixtures.tiny_model import tiny_tokenizer, topic_rows
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


def test_changed_base_fails_reload(make_spec, monkeypatch):
    check_moved = sanity_checks.check_moved

    def defective(model, before, ranks):
        record = check_moved(model, before, ranks=ranks)
        dict(model.named_parameters())["base_model.model.lm_head.weight"].data *= 2
        return record

    monkeypatch.setattr(sanity_checks, "check_moved", defective)
    with pytest.raises(SanityCheckFailure, match="reload: the adapter in .* on a fresh base model on rank 0"):
        run_here(make_spec(train=FEW))


def test_unsaved_new_weights_fail_reload(make_spec, monkeypatch, tmp_path):
    """BERT's pooler is not in a checkpoint of a masked language model: its weights depend on the seed."""
    options = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = tiny_tokenizer()
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=0, **options)
    BertForMaskedLM(config).double().save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    rows = [{"text": row["input"], "label": row["output"]} for row in topic_rows(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = make_spec(
        model={"path": str(tmp_path / "bert"), "task": "sequence_classification"},
        data={"path": str(tmp_path / "rows.jsonl"), "prompt": "text", "response": None},
        lora={"target_modules": ["query"]},
        train=FEW,
    )
    result = run_here(spec)
    assert result.checks["reload"]["ok"]
    assert any("pooler" in name for name in load_file(Path(spec.folder) / "adapter" / adapter.WEIGHTS))
    monkeypatch.setattr(adapter, "_beside", lambda new, saved: [])
    with pytest.raises(SanityCheckFailure, match="reload: the adapter in"):
        run_here(spec)


def test_trained_model_is_released_before_reload(make_spec, monkeypatch):
    load_base = pipeline.load_base
    loaded = []

    def watched(*args, **options):
        assert all(reference() is None for reference in loaded), "two base models in memory"
        base = load_base(*args, **options)
        loaded.append(weakref.ref(base.module))
        return base

    monkeypatch.setattr(pipeline, "load_base", watched)
    run_here(make_spec(train=FEW))
    assert len(loaded) == 2


def test_random_start_is_saved_as_ordinary(make_spec):
    """Two of PiSSA's fast decompositions differ: only an adapter of the unchanged base model can be loaded again."""
    lora = {"init_lora_weights": "pissa_niter_2", "target_modules": ["q_proj"]}
    spec = make_spec(model=SINGLE, lora=lora, train=FEW)
    record = run_here(spec).checks["reload"]
    assert record["disk_loss"] == pytest.approx(record["memory_loss"], rel=1e-5)
    config = json.loads((Path(spec.folder) / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)


def test_saved_adapter_is_readable_by_others(make_spec):
    spec = make_spec(train=FEW)
    run_here(spec)
    files = list((Path(spec.folder) / "adapter").iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o644}


@pytest.mark.parametrize(
    ("lengths", "chosen"),
    [([200, 40, 9, 33, 60], [32, 32]), ([5, 9, 7], [9, 7]), ([90, 12, 20], [32, 20]), ([8], [8])],
)
def test_fixed_batch_has_short_rows(lengths, chosen):
    rows = [Row(ids=[1] * length, targets=[1] * length) for length in lengths]
    assert [len(row.ids) for row in sanity_checks._fixed_batch(rows)] == chosen


def test_fixed_batch_ends_with_counted_tokens():
    targets = [IGNORED] * 40 + [*range(40, 60)] + [IGNORED] * 5
    [window] = sanity_checks._fixed_batch([Row(ids=[*range(65)], targets=targets)])
    assert window.ids == [*range(28, 60)]
    assert window.targets == [IGNORED] * 12 + [*range(40, 60)]


def test_fixed_batch_keeps_rows_of_classes():
    [row] = sanity_checks._fixed_batch([Row(ids=[1] * 90, targets=[2])])
    assert len(row.ids) == 90
