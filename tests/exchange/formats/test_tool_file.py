"""Configs of other tools: every key is one that the tool has, no key of the study file is lost, the tools parse them.

The fields of the tools are recorded in tests/data/tool_fields.json (scripts/tool-configs): every file is checked with
them. A tool that is installed parses its file; scripts/test installs trl, which needs nothing but what trials need.
The others bring a torch of their own: HPOTUNE_TOOL_PYTHONS=axolotl=/venv/bin/python:litgpt=… names their environments,
by hand.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpotune.errors import StudyFileError
from hpotune.exchange.formats.axolotl_config import axolotl_config
from hpotune.exchange.formats.litgpt_config import litgpt_config
from hpotune.exchange.formats.llama_factory_config import llama_factory_config
from hpotune.exchange.formats.portable_script import portable_script
from hpotune.exchange.formats.tool_file import ToolFile
from hpotune.exchange.formats.trl_config import trl_config
from hpotune.exchange.setting_export import export_setting
from hpotune.exchange.trial_setting import TrialSetting, trial_setting
from tests.exchange.conftest import Tuned

ROOT = Path(__file__).parents[3]
FIELDS = json.loads((ROOT / "tests/data/tool_fields.json").read_text())
TOOLS: dict[str, Callable[[TrialSetting], ToolFile]] = {
    "axolotl": axolotl_config,
    "trl": trl_config,
    "llama-factory": llama_factory_config,
    "litgpt": litgpt_config,
}
EVERYTHING = {
    "model": {"revision": "v1", "tokenizer": "other/one", "attn_implementation": "sdpa", "trust_remote_code": True},
    "lora": {
        "r": 4, "lora_alpha": 32, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"], "use_rslora": True,
        "use_dora": True, "rank_pattern": {"q_proj": 8}, "bias": "lora_only", "modules_to_save": ["lm_head"],
    },
    "train": {
        "learning_rate": 1e-3, "num_train_epochs": 2, "optim": "sgd", "sgd_momentum": 0.9, "weight_decay": 0.1,
        "global_batch_size": 8, "neftune_noise_alpha": 5.0, "label_smoothing_factor": 0.1, "max_grad_norm": 0.5,
        "dataloader_drop_last": True, "data_seed": 7, "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "seed": 3,
    },
}  # fmt: skip


def python_with(tool: str) -> str | None:
    """A Python that has the tool; None where there is none."""
    named = dict(one.split("=", 1) for one in os.environ.get("HPOTUNE_TOOL_PYTHONS", "").split(":") if one)
    package = {"llama-factory": "llamafactory"}.get(tool, tool)
    return named.get(tool) or (sys.executable if importlib.util.find_spec(package) else None)


def setting_of(tuned: Tuned, **sections: dict[str, Any]) -> TrialSetting:
    """The setting of trial 1 with other sections."""
    values = {**tuned.study.template, **sections}
    if "model" in sections:
        values["model"] = {**tuned.study.template["model"], **sections["model"]}  # type: ignore[dict-item]
    from hpotune.config.load import build_study

    study = build_study(replace(tuned.study.source, values=values))
    names = {r.name for r in study.space.searched}
    row = replace(tuned.rows[0], params={k: v for k, v in tuned.rows[0].params.items() if k in names})
    return trial_setting(study, row, prepared="")


def keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a config; of litgpt also those of its sections."""
    for key, value in values.items():
        nested = isinstance(value, dict) and (prefix + key in ("train", "eval", "data", "data.init_args"))
        yield from keys(value, f"{prefix}{key}.") if nested else [prefix + key]


def given_keys(tool: str, file: ToolFile) -> set[str]:
    values = yaml.safe_load(file.text)
    return set(keys(values)) - {"data.class_path"} if tool == "litgpt" else set(values)


@pytest.mark.parametrize("tool", TOOLS)
def test_keys_are_known_to_tool(tool: str, tuned: Tuned) -> None:
    for setting in (setting_of(tuned), setting_of(tuned, **EVERYTHING)):
        file = TOOLS[tool](setting)
        assert given_keys(tool, file) <= set(FIELDS[tool]["fields"]), FIELDS[tool]["version"]


def expressed(file: ToolFile) -> str:
    """All that a reader of the file sees."""
    return file.text + "\n".join(file.notes)


@pytest.mark.parametrize("tool", [*TOOLS, "script"])
def test_no_key_is_dropped_silently(tool: str, tuned: Tuned) -> None:
    make = TOOLS.get(tool, portable_script)
    for section in ("lora", "train", "model"):
        for key, value in EVERYTHING[section].items():
            alone = {name: dict(inner) for name, inner in EVERYTHING.items()}
            del alone[section][key]
            if section == "train":
                for unfit in {"optim": ["sgd_momentum"], "lr_scheduler_type": ["lr_scheduler_kwargs"]}.get(
                    key, []
                ):
                    alone[section].pop(unfit, None)
                if key in ("sgd_momentum", "lr_scheduler_kwargs"):
                    continue
            with_key, without = make(setting_of(tuned, **EVERYTHING)), make(setting_of(tuned, **alone))
            batch = key == "global_batch_size"  # measured in the trial, whatever the file says
            assert batch or expressed(with_key) != expressed(without), (section, key, value)


def test_notes_stand_in_the_header(tuned: Tuned) -> None:
    file = litgpt_config(setting_of(tuned))
    assert any(note.startswith("train.label_smoothing_factor=0.1") for note in file.notes)
    comments = [line for line in file.text.splitlines() if line.startswith("#")]
    assert all(any(note in line for line in comments) for note in file.notes)


def test_texts_cannot_leave_the_header(tuned: Tuned) -> None:
    prompt = 'x"""\nimport os # {input}'
    setting = setting_of(
        tuned, data={**tuned.study.template["data"], "path": 'a\nkey: 1"""\\', "prompt": prompt}
    )  # type: ignore[dict-item]
    for make in TOOLS.values():
        assert "key" not in yaml.safe_load(make(replace(setting, _left=dict(setting._left), notes=[])).text)
    compile(portable_script(setting).text, "finetune.py", "exec")


@pytest.mark.parametrize(
    ("tool", "section", "values", "text"),
    [
        ("litgpt", "train", {"optim": "adafactor"}, "takes optimizers of torch.optim only"),
        ("litgpt", "lora", {"target_modules": ["c_attn"]}, "'c_attn' is no layer of litgpt"),
        ("litgpt", "lora", {"target_modules": ".*_proj"}, "not a pattern"),
        ("llama-factory", "lora", {"target_modules": ".*_proj"}, "not a pattern"),
    ],
)
def test_what_is_wrong_there_is_refused(
    tool: str, section: str, values: dict[str, Any], text: str, tuned: Tuned
) -> None:
    setting = setting_of(tuned, **{section: values})
    with pytest.raises(StudyFileError, match=text):
        TOOLS[tool](setting)


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if python_with(tool)])
def test_tool_parses_its_config(tool: str, tuned: Tuned, tmp_path: Path) -> None:
    python = python_with(tool)
    assert python is not None
    out = tmp_path / "out"
    file = export_setting(tuned.folder, tuned.study, tuned.rows, out=out, number=1, form=tool).file
    done = subprocess.run(
        [python, str(ROOT / "scripts/tool-configs"), "parse", tool, file.name],
        **{"cwd": file.parent, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert read["learning_rate"] == 5e-3
    assert read["batch"] == [3, 3]
    assert read["schedule"] == "cosine"
    assert read["lora"][:3] == [4, 8, 0.1]
    assert read["seed"] == 0
