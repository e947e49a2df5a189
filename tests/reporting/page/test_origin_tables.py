"""Provenance and reruns on the page: what trials recorded, and what differs between their environments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpotune.reporting.page.origin_tables import provenance_table, reruns_table
from hpotune.workspace.origin.content import Content
from hpotune.workspace.origin.environment import Environment, write_environment
from hpotune.workspace.origin.trial_provenance import TrialProvenance, write_trial_provenance
from tests.fixtures.report_studies import OWN, StudyData, own_rows, study_of


@pytest.fixture
def recorded(tmp_path: Path) -> StudyData:
    """Three finished trials; the last one ran with another torch, on another node."""
    made = study_of(tmp_path, own_rows(0.3, 0.2, 0.1), **OWN)
    for number, torch in enumerate(("2.13.0", "2.13.0", "2.12.1")):
        environment = Environment(
            python="3.11.7", system="Linux", cpu="EPYC", gpu="", driver="",
            packages={"torch": torch, "numpy": "2.0"},
        )  # fmt: skip
        folder = made.folder.trial(number)
        folder.mkdir(parents=True, exist_ok=True)
        provenance = TrialProvenance(
            environment=write_environment(made.folder.path, environment), host=f"node{number // 2}", started=1.0,
            code="abc", contents={"data": Content(path="rows.json", sha256="f" * 64, size=10**6)},
        )  # fmt: skip
        write_trial_provenance(folder, provenance)
    return made


def test_page_names_what_trials_recorded(recorded: StudyData) -> None:
    rows = dict(provenance_table(recorded.report()).rows)
    assert rows["git commit"].startswith("0123456789abcdef")
    assert rows["data"] == "rows.json, sha256 ffffffffffffffff, 1.0 MB"
    assert rows["nodes"] == "node0 (2 trials), node1 (1 trial)"
    assert rows["packages"] == "torch 2.13.0, numpy 2.0"
    assert rows["trial 2"] == "ran with torch 2.12.1 instead of 2.13.0"


def test_unrecorded_study_shows_its_packages(tmp_path: Path) -> None:
    rows = dict(provenance_table(study_of(tmp_path, own_rows(0.3), **OWN).report()).rows)
    assert rows["packages where it was made"] == "hpotune 0.2.0, torch 2.13.0, peft 0.21.0"


def test_unreadable_provenance_leaves_a_page(recorded: StudyData) -> None:
    recorded.folder.provenance_file.write_text("{")
    assert recorded.report().provenance is None
    assert dict(provenance_table(recorded.report()).rows)["function"]


def test_reruns_are_shown(recorded: StudyData) -> None:
    assert reruns_table(recorded.report()) is None
    folder = recorded.folder.path / "reruns" / "1-1"
    folder.mkdir(parents=True)
    number = {"name": "loss", "before": 0.2, "now": 0.2, "decides": True}
    entry = {
        "trial": 1, "state": "equal", "message": "", "numbers": [number], "first_step": None, "differences": [],
        "recorded": True,
    }  # fmt: skip
    (folder / "comparison.json").write_text(json.dumps(entry))
    table = reruns_table(recorded.report())
    assert table is not None
    assert table.rows == (
        ("1", "1-1", "1 of 1", "the rerun gives the same losses and scores to the last digit"),
    )
