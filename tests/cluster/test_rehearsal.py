"""`resources.rehearsal: job` on a real Slurm: workers start after a rehearsal that passed, and only then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.fixtures.cluster_studies import ended, hpotune, wait
from tests.fixtures.tiny_model import tiny_model, topic_rows

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("slurm_cluster")]


def tiny_study(folder: Path, *, rows: int) -> Path:
    """A study of one trial of the tiny model; below nine rows its batches cannot be filled."""
    tiny_model(folder / "model", layers=2)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topic_rows(rows)))
    values = {
        "name": "tiny",
        "model": {"path": "model"},
        "data": {"path": "rows.jsonl", "prompt": "{input} Topic: ", "response": "{output}", "validation": 2},
        "lora": {"r": {"int": [2, 8]}},
        "train": {"max_steps": 1, "global_batch_size": 8, "dataloader_drop_last": True},
        "score": {"objective": {"metric": "eval_loss"}},
        "search": {"algorithm": "random"},
        "budget": {"trials": 1, "parallel": 1},
        "resources": {
            "partition": "a100",
            "cpus": 1,
            "time": "10:00",
            "signal_delay_s": 30,
            "rehearsal": "job",
        },
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return folder / "study.yaml"


def kinds(status: dict) -> dict[str, set[str]]:
    """Kind of job -> the states of its jobs."""
    return {
        job["kind"]: {one["state"] for one in status["jobs"] if one["kind"] == job["kind"]}
        for job in status["jobs"]
    }


def test_workers_wait_for_the_rehearsal(tmp_path: Path) -> None:
    study = tiny_study(tmp_path, rows=24)
    assert len(hpotune("submit", study)["submitted"]) == 3  # rehearsal, worker, follow-up
    assert hpotune("submit", study)["submitted"] == []
    status = wait(study, ended)
    assert status["state"] == "done"
    assert status["rehearsal"]["state"] == "passed"
    assert kinds(status)["rehearsal"] == {"COMPLETED"}
    assert list((tmp_path / "tiny" / "prepared").glob("*.npz"))


def test_no_worker_starts_after_mistakes(tmp_path: Path) -> None:
    study = tiny_study(tmp_path, rows=8)
    hpotune("submit", study)
    status = wait(
        study, lambda status: not any(job["state"] in ("PENDING", "RUNNING") for job in status["jobs"])
    )
    assert status["rehearsal"]["state"] == "failed"
    assert "do not fill one batch of 8" in status["rehearsal"]["mistakes"][0]
    assert kinds(status)["worker"] == {"CANCELLED"}
    assert kinds(status)["rehearsal"] == {"FAILED"}
    assert status["trials"]["finished"] == status["trials"]["failed"] == 0
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in topic_rows(24))
    assert len(hpotune("submit", study)["submitted"]) >= 2
    assert wait(study, ended)["state"] == "done"
