"""What `check` and `doctor` say of HyperQueue: nothing, that it is missing, that no worker is connected."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.checks.finding import exit_code
from hpotune.checks.hyperqueue_server import hyperqueue_findings
from hpotune.config.load import load_study
from hpotune.config.schema.study_config import StudyConfig
from tests.fixtures.cluster_studies import function_study
from tests.fixtures.hyperqueue_server import HyperQueue


def config(folder: Path, place: str = "hyperqueue") -> StudyConfig:
    return load_study(function_study(folder, "pass", f"execution: {{place: {place}}}")).config


def test_other_studies_are_left_alone(tmp_path: Path) -> None:
    assert list(hyperqueue_findings(config(tmp_path, "slurm"))) == list(hyperqueue_findings(None)) == []


def test_missing_hq_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    [found] = hyperqueue_findings(config(tmp_path))
    assert found.text.startswith("hq not found: HyperQueue is not installed here")
    assert exit_code([found]) == 3


def test_server_without_workers_is_noted(hq_here: HyperQueue, tmp_path: Path) -> None:
    study = config(tmp_path)
    [away] = hyperqueue_findings(study)
    hq_here.start()
    fact, note = hyperqueue_findings(study)
    hq_here.start_worker()
    [full] = hyperqueue_findings(study)
    assert away.text.startswith("no HyperQueue server answers (No running instance of HQ found")
    assert (fact.level, note.level, full.level) == ("ok", "note", "ok")
    assert note.text == "no worker of HyperQueue is connected: submitted workers wait"
    assert "server v0." in full.text
