"""The programs of the templates run as trials of their study, with a tiny model: they report, stop at rungs, go on."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpotune.config.load import load_study
from hpotune.config.schema.rungs import Rung
from hpotune.config.templates import copy_template
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective import open_objective
from hpotune.worker.objective.interface import TrialContext
from hpotune.worker.objective.process import StopRequest
from tests.conftest import needs_torch
from tests.fixtures.local_hub import Hub
from tests.fixtures.tiny_model import tiny_model, topic_rows

RUNGS = (2, 4)
ARGUMENTS = "--model meta-llama/Llama-3.2-1B --data rows.jsonl --steps 900"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_torch()
    return tiny_model(tmp_path_factory.mktemp("model"), hidden=16, layers=1)


def run(
    home: Path, name: str, *, rung: int | None = None, env: Mapping[str, str] | None = None, **replaced: str
) -> TrialResult:
    """One stage of the first trial of a template's study, whose command is changed a little."""
    file = home / f"{name}.yaml"
    if not file.exists():
        copy_template(name, file)
        text = file.read_text().replace('"python ', f'"{sys.executable} ')
        for before, after in replaced.items():
            assert before in text
            text = text.replace(before, after)
        file.write_text(text)
    config = load_study(file).config
    folder = home / "trial"
    folder.mkdir(exist_ok=True)
    stage = None if rung is None else Rung(index=rung, unit="steps", budget=RUNGS[rung], last=rung == 1)
    spec = TrialSpec(
        study=config.name, number=0, kind="trial", seed=0, folder=str(folder), home=str(home), command=config.command,
        point=load_study(file).base(), rung=stage,
    )  # fmt: skip
    variables = {**os.environ, "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": "", **(env or {})}
    with open_objective(TrialContext(config=config, env=variables, stop=StopRequest())) as evaluate:
        return evaluate([spec])[0]


def written_rows(home: Path) -> None:
    rows = [{"text": f"{row['input']} {row['output']}"} for row in topic_rows(24)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["transformers", "trl"])
def test_trainer_stops_at_its_rung(name: str, model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip(name)  # TRL needs Python 3.11
    written_rows(tmp_path)
    arguments = {ARGUMENTS: f"--model {model_folder} --data rows.jsonl --steps {RUNGS[-1]}"}
    result = run(tmp_path, name, rung=0, **arguments)
    assert (result.state, result.rung) == ("finished", 0), result.failure
    assert 0 < result.values[0] < 20
    assert (tmp_path / "trial" / "checkpoint" / f"checkpoint-{RUNGS[0]}" / "trainer_state.json").is_file()


def test_accelerate_goes_on_over_ranks(model_folder: Path, tmp_path: Path) -> None:
    written_rows(tmp_path)
    arguments = {
        ARGUMENTS: f"--model {model_folder} --data rows.jsonl --steps {RUNGS[-1]}",
        "accelerate launch": f"{Path(sys.executable).parent}/torchrun --standalone --nproc_per_node 2",
    }
    results = [run(tmp_path, "accelerate", rung=rung, **arguments) for rung in (0, 1)]
    assert [one.state for one in results] == ["finished"] * 2, [one.failure for one in results]
    folder = tmp_path / "trial" / "checkpoint"
    assert [path.name for path in folder.iterdir()] == [f"step-{RUNGS[-1]}"]
    reports = [json.loads(line) for line in (tmp_path / "trial" / "reports.jsonl").read_text().splitlines()]
    assert [one["step"] for one in reports if "loss" in one["metrics"]] == [
        1,
        2,
        3,
        4,
    ]  # rank 0 alone, none twice


def test_hydra_names_the_values(tmp_path: Path) -> None:
    result = run(tmp_path, "hydra")
    assert result.state == "finished", result.failure
    assert 0 < result.values[0] <= 1
    assert (tmp_path / "trial" / "hydra" / ".hydra" / "overrides.yaml").is_file()


EXAM = """\
---
configs:
- config_name: ARC-Easy
  data_files: [{split: train, path: train.jsonl}, {split: validation, path: test.*}, {split: test, path: test.jsonl}]
---
"""


def exam_on_hub(folder: Path) -> Hub:
    """A hub with four questions under the name of lm-eval's arc_easy."""
    folder.mkdir()
    rows = [
        {
            "id": f"{number}",
            "question": f"Which of them is the {name}?",
            "choices": {"text": [name, "coral", "oven", "comet"], "label": ["A", "B", "C", "D"]},
            "answerKey": "A",
        }
        for number, name in enumerate(("whale", "drum", "moon", "spoon"))
    ]
    (folder / "README.md").write_text(EXAM)
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    hub = Hub()
    hub.publish("datasets/allenai/ai2_arc", folder)
    return hub


def litgpt_checkpoint(folder: Path, model: Path) -> Path:
    """A model of random weights as `litgpt download` writes it, of the size of the tiny model."""
    import torch
    from litgpt import GPT, Config
    from litgpt.utils import save_config

    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    sizes = json.loads((folder / "config.json").read_text())
    config = Config(
        name="tiny-llama-1.1b", hf_config={}, block_size=sizes["max_position_embeddings"],
        vocab_size=sizes["vocab_size"], padded_vocab_size=sizes["vocab_size"], n_layer=sizes["num_hidden_layers"],
        n_head=sizes["num_attention_heads"], n_query_groups=sizes["num_key_value_heads"],
        n_embd=sizes["hidden_size"], intermediate_size=sizes["intermediate_size"], rotary_percentage=1.0,
        parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
    )  # fmt: skip
    torch.save(GPT(config).state_dict(), folder / "lit_model.pth")
    save_config(config, folder)
    return folder


def test_litgpt_trains_and_scores(model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("litgpt")
    hub = exam_on_hub(tmp_path / "exam")
    checkpoint = litgpt_checkpoint(tmp_path / "lit", model_folder)
    (tmp_path / "rows.json").write_text(json.dumps(topic_rows(40)))
    arguments = {
        "--checkpoint checkpoints/meta-llama/Llama-3.2-1B": f"--checkpoint {checkpoint}",
        "--task hellaswag --steps 300": "--task arc_easy --limit 4 --steps 2",
    }
    try:
        env = {"HF_ENDPOINT": hub.start(), "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        result = run(tmp_path, "litgpt", env=env, **arguments)
    finally:
        hub.stop()
    assert result.state == "finished", result.failure
    assert result.values[0] in (0, 0.25, 0.5, 0.75, 1)
    assert {"acc", "acc_stderr"} <= set(result.metrics)
    final = tmp_path / "trial" / "checkpoint" / "final"
    assert (final / "lit_model.pth.lora").is_file()
    assert not (final / "lit_model.pth").exists()


AXOLOTL = """\
#!{python}
import sys
import yaml
from axolotl.utils.schemas.config import AxolotlInputConfig
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

values = yaml.safe_load(open(sys.argv[2]))
unknown = set(values) - set(AxolotlInputConfig.model_fields)
assert not unknown, unknown
config = AxolotlInputConfig.model_validate(values)
made = LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, target_modules="all-linear")
get_peft_model(AutoModelForCausalLM.from_pretrained(config.base_model), made).save_pretrained(config.output_dir)
"""
"""Checks the config by axolotl's own schema, and writes an adapter that was not trained: axolotl needs a GPU."""


def test_axolotl_config_is_valid(model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("axolotl")
    hub = exam_on_hub(tmp_path / "exam")
    program = tmp_path / "bin" / "axolotl"
    program.parent.mkdir()
    program.write_text(AXOLOTL.format(python=sys.executable))
    program.chmod(0o755)
    written_rows(tmp_path)
    arguments = {
        "--model meta-llama/Llama-3.2-1B": f"--model {model_folder}",
        "--task hellaswag --steps 300": "--task arc_easy --limit 4 --steps 2",
    }
    try:
        env = {"HF_ENDPOINT": hub.start(), "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        env["PATH"] = f"{program.parent}:{os.environ['PATH']}"
        result = run(tmp_path, "axolotl", env=env, **arguments)
    finally:
        hub.stop()
    assert result.state == "finished", result.failure
    assert result.values[0] in (0, 0.25, 0.5, 0.75, 1)
