"""A tiny trained study for the exports: two trials in this process, with their folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hpotune.config.load import Study
from hpotune.records.trial import TrialRow
from hpotune.workspace.folder import StudyFolder

STUDY = {
    "name": "tuned",
    "model": {"path": "MODEL", "dtype": "float64"},
    "data": {"path": "ROWS", "validation": 8, "prompt": "{input} Topic: ", "response": "{output}"},
    "lora": {"r": {"choice": [4, 8]}, "lora_alpha": {"expr": "2 * lora.r"}, "lora_dropout": 0.1},
    "train": {
        "learning_rate": {"float": [1e-4, 1e-2], "log": True},
        "max_steps": 12,
        "global_batch_size": 8,
        "per_device_train_batch_size": 3,
        "warmup_steps": 0.1,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "label_smoothing_factor": 0.1,
    },
    "score": {"objective": {"metric": "eval_loss"}},
    "budget": {"trials": 3},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """A study whose trial 1 has been trained."""

    folder: StudyFolder
    study: Study
    rows: list[TrialRow]


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Trial 1 of a study, on a float64 model of 100,000 weights; its adapter is kept."""
    from hpotune.config.load import load_study
    from hpotune.worker.trial_spec import base_spec, spec_at_point
    from tests.fixtures.tiny_model import tiny_model, topic_rows
    from tests.fixtures.tiny_trials import run_here

    home = tmp_path_factory.mktemp("tuned")
    tiny_model(home / "model", dtype="float64", layers=2)
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topic_rows(48)))
    values = json.loads(
        json.dumps(STUDY).replace("MODEL", str(home / "model")).replace("ROWS", str(home / "rows.jsonl"))
    )
    (home / "study.yaml").write_text(yaml.safe_dump(values))
    study, folder = load_study(home / "study.yaml"), StudyFolder(path=home / "tuned")
    row = TrialRow(number=1, kind="trial", state="waiting", params={"lora.r": 4, "train.learning_rate": 5e-3})
    spec = spec_at_point(base_spec(row, study, folder, home=str(home)), row, study)
    Path(spec.folder).mkdir(parents=True)
    result = run_here(spec)
    finished = TrialRow(
        number=1,
        kind="trial",
        state="finished",
        params=row.params,
        values=tuple(result.values),
        stderrs=tuple(result.stderrs),
        metrics=dict(result.metrics),  # type: ignore[arg-type]
    )
    return Tuned(folder=folder, study=study, rows=[finished])
