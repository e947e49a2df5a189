"""Export of an adapter: the copy and the merged model compute what was scored in training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hpotune.finetune.model.adapter_export import check_merged, main
from hpotune.finetune.trial_errors import SanityCheckFailure
from tests.fixtures.tiny_model import tiny_model

CARD = {"base": ""}
TOKENS = torch.arange(5, 45).reshape(2, 20)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def test_exported_adapter_gives_same_logits(base: Path, adapter: Path, tmp_path: Path) -> None:
    main([str(adapter), str(tmp_path / "out")], {**CARD, "base": str(base)})
    kept = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter))
    exported = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out"))
    assert torch.equal(kept, exported)
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"] == str(
        base
    )


def test_merged_weights_give_same_logits(base: Path, adapter: Path, tmp_path: Path) -> None:
    module = "hpotune.finetune.model.adapter_export"
    command = [sys.executable, "-m", module, str(adapter), str(tmp_path / "out"), "--merge"]
    card = json.dumps({**CARD, "base": str(base)})
    subprocess.run(command, input=card, text=True, check=True, capture_output=True)
    apart = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter))
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    torch.testing.assert_close(merged, apart, rtol=0, atol=1e-4)  # float32 sums in another order
    assert (tmp_path / "out/tokenizer.json").is_file()


def test_export_is_readable_by_others(base: Path, adapter: Path, tmp_path: Path) -> None:
    main([str(adapter), str(tmp_path / "out")], {**CARD, "base": str(base)})
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in (tmp_path / "out").iterdir())


def test_merge_rounds_once(adapter: Path, tmp_path: Path) -> None:
    half = tiny_model(tmp_path / "half", dtype="bfloat16")
    main([str(adapter), str(tmp_path / "out"), "--merge"], {**CARD, "base": str(half)})
    wide = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(half, dtype=torch.float32), adapter)
    expected = wide.merge_and_unload().bfloat16().state_dict()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.dtype == torch.bfloat16
    assert all(torch.equal(weight, expected[name]) for name, weight in merged.state_dict().items())


def test_separate_tokenizer_is_exported(base: Path, adapter: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base, bare, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    card = {**CARD, "base": str(bare), "tokenizer": str(base), "trust_remote_code": False}
    main([str(adapter), str(tmp_path / "out"), "--merge"], card)
    assert (tmp_path / "out/tokenizer.json").is_file()


def test_classifier_is_merged_with_head(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "base", num_labels=3)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="SEQ_CLS")
    base = AutoModelForSequenceClassification.from_pretrained(folder)
    base.config.pad_token_id = 0
    model = get_peft_model(base, config)
    with torch.no_grad():
        model.base_model.model.score.modules_to_save["default"].weight.add_(1.0)
    model.save_pretrained(tmp_path / "adapter")
    main([str(tmp_path / "adapter"), str(tmp_path / "out"), "--merge"], {**CARD, "base": str(folder)})
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    merged.config.pad_token_id = 0
    torch.testing.assert_close(logits(merged), logits(model), rtol=0, atol=1e-4)


def test_merged_loss_is_compared(base: Path, adapter: Path, tmp_path: Path) -> None:
    before, after = main([str(adapter), str(tmp_path / "out"), "--merge"], {**CARD, "base": str(base)})[
        "losses"
    ]  # type: ignore[misc]
    assert before == pytest.approx(after, rel=1e-5)
    plain = main([str(adapter), str(tmp_path / "adapter")], {**CARD, "base": str(base)})
    assert plain == {"labels": [], "losses": None, "whole": False}


def test_weights_too_large_to_merge(base: Path, adapter: Path, tmp_path: Path) -> None:
    half = tiny_model(tmp_path / "half", dtype="float16")
    shutil.copytree(adapter, tmp_path / "large")
    file = tmp_path / "large" / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: weight * 3e3 for name, weight in weights.items()}, file)  # the product overflows float16
    with pytest.raises(SanityCheckFailure, match="the merged weights in float16 have a loss of nan"):
        main([str(tmp_path / "large"), str(tmp_path / "out"), "--merge"], {**CARD, "base": str(half)})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("dtype", "most"), [("float64", 1e-9), ("float32", 1e-4), ("bfloat16", 2e-2), ("float16", 1e-2)]
)
def test_tolerance_is_that_of_the_dtype(dtype: str, most: float) -> None:
    check_merged(2.0, 2.0 * (1 + 0.9 * most), dtype=dtype)
    with pytest.raises(SanityCheckFailure, match=f"the merged weights in {dtype}"):
        check_merged(2.0, 2.0 * (1 - 1.2 * most), dtype=dtype)


def test_folder_without_adapter_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "hpotune.finetune.model.adapter_export",
        str(tmp_path),
        str(tmp_path / "out"),
    ]
    run = subprocess.run(command, input=json.dumps(CARD), text=True, capture_output=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("export: ")
    assert "holds no adapter" in run.stderr
    assert not (tmp_path / "out").exists()
