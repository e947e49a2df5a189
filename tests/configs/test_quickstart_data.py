"""The quickstart's data: shipped as generated, balanced, no test sentence among the training rows."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/make-quickstart-data"
DATA = ROOT / "configs/quickstart/data/hpotune/quickstart"
TASK = ROOT / "configs/quickstart/tasks/helpdesk.yaml"
QUEUES = ["red", "blue", "green", "gold"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("make_quickstart_data", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def rows(split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"{split}.jsonl").read_text().splitlines()]


def test_generator_writes_the_shipped_files(tmp_path):
    subprocess.run([sys.executable, str(SCRIPT), "--to", str(tmp_path)], check=True, capture_output=True)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {file.name: file.read_bytes() for file in DATA.glob("*.jsonl")}


@pytest.mark.parametrize(("split", "each"), [("train", 48), ("test", 25)])
def test_queues_have_equally_many_rows(split, each):
    assert Counter(row["output"] for row in rows(split)) == dict.fromkeys(QUEUES, each)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_slice_has_several_queues(split):
    found = [row["output"] for row in rows(split)]
    assert all(len(set(found[at : at + 16])) == 4 for at in range(0, len(found) - 16, 16))


def test_sentences_are_unique_across_splits(script):
    texts = [text.replace("-----", "") for text in script.SENTENCES.values()]
    lines = [line for text in texts for line in text.split("\n") if line]
    assert len({line.lower() for line in lines}) == len(lines) == len(rows("train")) + len(rows("test"))


def test_splits_share_no_sentence_frame(script):
    assert not set(script.TRAIN_FRAMES) & set(script.TEST_FRAMES)


def test_no_message_names_a_queue():
    messages = [row["input"].lower() for row in rows("train") + rows("test")]
    assert not [message for message in messages if set(message.split()) & set(QUEUES)]


def test_task_uses_the_training_prompt():
    study = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text())
    task = yaml.safe_load(TASK.read_text())
    assert task["doc_to_text"] == study["data"]["prompt"].replace("{input}", "{{input}}")
    assert study["data"]["response"] == " {output}"
    assert task["doc_to_choice"] == QUEUES
