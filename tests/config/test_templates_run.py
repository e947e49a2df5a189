"""The programs of the templates run as trials of their study, with a tiny model: they report, stop at rungs, go on."""

from __future__ import annotations

import json
import os
import sys
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
from tests.fixtures.tiny_model import tiny_model, topic_rows

RUNGS = (2, 4)
ARGUMENTS = "--model meta-llama/Llama-3.2-1B --data rows.jsonl --steps 900"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_torch()
    return tiny_model(tmp_path_factory.mktemp("model"), hidden=16, layers=1)


def run(home: Path, name: str, *, rung: int | None = None, **replaced: str) -> TrialResult:
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
    env = {**os.environ, "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    with open_objective(TrialContext(config=config, env=env, stop=StopRequest())) as evaluate:
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
