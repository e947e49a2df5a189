"""Every kind of model and every kind of training: a short trial improves its metric, and its export loads as it was.

What is exported is loaded by plain transformers and peft, whose own loss of the validation rows is the trial's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from hpotune.finetune.inputs import load_inputs
from hpotune.finetune.model.adapter_export import main as export
from hpotune.finetune.training.loss import Row
from hpotune.records.trial import TrialSpec
from tests.fixtures.tiny_model import TOPICS, tiny_model, topic_rows
from tests.fixtures.tiny_trials import SHORT, run_here, spec_in

ROUNDING = 2e-5
"""Relative: float32 sums in another order, of 48 rows, and merged or padded otherwise."""
LEARNT: Mapping[str, tuple[str, float]] = {
    "causal_lm": ("eval_loss", -1.0),
    "single_label_classification": ("eval_matthews", 0.3),
    "multi_label_classification": ("eval_f1_micro", 0.1),
    "regression": ("eval_pearson", 0.3),
}
"""Kind of model -> its metric, and by how much at least a trial changes it."""
METHODS: Mapping[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"lora": {"use_rslora": True}},
    "dora": {"lora": {"use_dora": True}},
    "lora+": {"train": {"loraplus_lr_ratio": 4.0, "learning_rate": 5e-3}},
    "pissa": {"lora": {"init_lora_weights": "pissa"}},
    "olora": {"lora": {"init_lora_weights": "olora"}, "train": {"learning_rate": 5e-3}},
    "full": {"train": {"method": "full", "learning_rate": 5e-3}},
}
QUANTIZES = importlib.util.find_spec("bitsandbytes") is not None
if QUANTIZES:
    METHODS = {**METHODS, "qlora": {"model": {"quantization": "nf4"}}}


def rows_of(kind: str) -> list[dict[str, Any]]:
    """Sentences of one topic, or of two neighbours in the list, with the label of this kind."""
    rows = topic_rows(120)
    if kind == "multi_label_classification":
        return [
            {"text": f"{one['input']} {two['input']}", "label": sorted({one["output"], two["output"]})}
            for one, two in pairwise(rows)
        ]
    if kind == "regression":
        scale = dict(zip(TOPICS, (-1.5, -0.5, 0.5, 1.5), strict=True))
        return [{"text": row["input"], "label": scale[row["output"]]} for row in rows]
    return [{**row, "text": row["input"], "label": row["output"]} for row in rows]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrialSpec]:
    """A trial of a kind of model, in float32."""
    folder = tmp_path_factory.mktemp("kinds")
    tiny_model(folder / "model", layers=2)
    for kind in LEARNT:
        lines = "".join(json.dumps(row) + "\n" for row in rows_of(kind))
        (folder / f"{kind}.jsonl").write_text(lines)

    def spec(
        kind: str, name: str, *, lora: Any = None, train: Any = None, model: Any = None, **more: Any
    ) -> TrialSpec:
        head = {} if kind == "causal_lm" else {"task": "sequence_classification", "problem_type": kind}
        data = SHORT if kind == "causal_lm" else {"prompt": "text", "response": None}
        return spec_in(
            folder,
            folder,
            f"{kind}-{name}",
            model={"dtype": "float32", **head, **(model or {})},
            data={"path": str(folder / f"{kind}.jsonl"), "validation": 48, **data},
            lora={"r": 8} | (lora or {}),
            train={"max_steps": 24, "learning_rate": 1e-2} | (train or {}),
            score={"objective": [{"metric": LEARNT[kind][0]}]},
            **more,
        )

    return spec


@pytest.fixture(scope="module")
def base_value(make: Callable[..., TrialSpec]) -> Callable[[str], float]:
    """The metric of the base model, for a kind."""
    return cache(lambda kind: run_here(make(kind, "base", spec={"kind": "baseline"})).values[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", LEARNT)
def test_trial_learns_and_export_reloads(
    make: Callable[..., TrialSpec], base_value: Callable[[str], float], tmp_path: Path, kind: str, method: str
) -> None:
    spec = make(kind, method, **METHODS[method])
    result = run_here(spec)
    change, least = result.values[0] - base_value(kind), LEARNT[kind][1]
    assert change / least >= 1, (kind, method, base_value(kind), result.values)
    model, labels = exported(spec, tmp_path / "export", whole=method == "full")
    names = None if kind == "causal_lm" else ["label"] if kind == "regression" else sorted(TOPICS)
    assert labels == names
    assert transformers_loss(model, spec) == pytest.approx(result.metrics["eval_loss"], rel=ROUNDING)
    merged = tmp_path / "merged"
    if method in ("lora", "pissa"):
        export_to(spec, merged, "--merge")
        whole = head(spec).from_pretrained(merged)
        assert transformers_loss(whole, spec) == pytest.approx(result.metrics["eval_loss"], rel=ROUNDING)
        assert getattr(whole.config, "problem_type", None) == (None if kind == "causal_lm" else kind)


def test_qlora_learns_and_reloads() -> None:
    """In a process that finds bitsandbytes: it is kept from the other tests, some of which are about its absence."""
    folder = os.environ.get("HPOTUNE_TEST_BITSANDBYTES")
    if QUANTIZES or not folder:
        pytest.skip(
            "tested above, or no bitsandbytes here: HPOTUNE_TEST_BITSANDBYTES=FOLDER (scripts/test has one)"
        )
    path = os.pathsep.join([os.environ["PYTHONPATH"], folder])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "export_reloads and qlora",
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout


def head(spec: TrialSpec) -> Any:
    """The class of transformers that a user loads."""
    name = {"causal_lm": "CausalLM", "sequence_classification": "SequenceClassification"}[
        spec.point.model.task
    ]
    return getattr(transformers, f"AutoModelFor{name}")


def export_to(spec: TrialSpec, out: Path, *options: str) -> None:
    """As `hpotune export` writes the weights of the trial."""
    folder = next(
        Path(spec.folder) / name for name in ("adapter", "model") if (Path(spec.folder) / name).is_dir()
    )
    model = spec.point.model
    export([str(folder), str(out), *options], {"base": model.path, "problem_type": model.problem_type})


def exported(spec: TrialSpec, out: Path, *, whole: bool) -> tuple[torch.nn.Module, list[str] | None]:
    """The exported model and the names of its classes, as transformers and peft load them."""
    export_to(spec, out)
    file = out / "labels.json"
    labels = json.loads(file.read_text()) if file.exists() else None
    if whole:
        model = head(spec).from_pretrained(out)
        assert transformers.AutoTokenizer.from_pretrained(out)("a text")["input_ids"]
        if labels:
            assert [model.config.id2label[number] for number in range(len(labels))] == labels
        return model, labels
    kind = spec.point.model.problem_type
    options = {} if labels is None else {"num_labels": len(labels), "problem_type": kind, "pad_token_id": 0}
    if spec.point.model.quantization:
        rounded = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        )
        options |= {"quantization_config": rounded, "device_map": {"": "cpu"}}
    base = head(spec).from_pretrained(spec.point.model.path, **options)
    return peft.PeftModel.from_pretrained(base, out), labels


def transformers_loss(model: Any, spec: TrialSpec) -> float:
    """The mean loss of the validation rows, one at a time, as transformers itself computes it from labels."""
    rows = load_inputs(spec.point.model, spec.point.data, data_root=None).validation
    model.eval()
    with torch.no_grad():
        losses = [one_loss(model, row, spec.point.model.problem_type) for row in rows]
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses)


def one_loss(model: Any, row: Row, kind: str | None) -> tuple[float, int]:
    """The loss of a row, and the positions that it counts."""
    ids, count = torch.tensor([row.ids]), 1
    if kind is None:
        labels, count = torch.tensor([row.targets]), sum(one != -100 for one in row.targets[1:])
    elif kind == "regression":
        labels = torch.tensor([row.number], dtype=torch.float32)
    elif kind == "multi_label_classification":
        labels = torch.zeros(1, len(TOPICS))
        labels[0, [*row.classes]] = 1
    else:
        labels = torch.tensor(row.targets)
    return float(model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss), count
