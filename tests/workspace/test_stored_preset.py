"""A study with a preset keeps the ranges with which it was made, whatever a later version fills in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpotune.api.opened_study import load_study_of
from hpotune.api.study import Study
from hpotune.checks.study_file import check
from hpotune.config.space import preset_filling
from hpotune.config.space.presets import PRESETS, PresetRange
from hpotune.errors import StudyFileError
from hpotune.launch.prepare import prepare
from hpotune.reporting.origin.provenance_table import study_provenance_rows
from hpotune.reporting.views.provenance_view import study_provenance
from hpotune.workspace.stored_preset import preset_in

FILE = """\
name: tuned
space: lora-default
model: {path: some/model}
data: {path: some/rows, prompt: alpaca}
lora: {r: 8}
score: {objective: {task: hellaswag, metric: acc_norm}}
budget: {trials: 4}
store: sqlite
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The file of a study that has its folder."""
    file = tmp_path / "study.yaml"
    file.write_text(FILE)
    prepare(file, chosen=None, data_root=None)
    return file


@pytest.fixture
def later(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same file under a version whose preset has other ranges and one more key."""
    first = PRESETS["lora-default"]
    other = replace(first.ranges[0], value={"float": [1.0e-6, 1.0], "log": True})
    more = PresetRange(key="train.max_grad_norm", value=1.0, reason="", basis="reasoning", sources=())
    changed = {**PRESETS, first.name: replace(first, ranges=(other, *first.ranges[1:], more))}
    monkeypatch.setattr(preset_filling, "PRESETS", changed)
    return made


def test_later_version_keeps_the_ranges(later: Path) -> None:
    folder = later.parent / "tuned"
    before = (folder / "resolved.yaml").read_text()
    for target in (later, folder):
        prepare(target, chosen=None, data_root=None)
        assert (folder / "resolved.yaml").read_text() == before
    notes: list[str] = []
    load_study_of(later, None, note=notes.append)
    assert notes == []
    assert "learning_rate: {float: [1.0e-5, 0.002]" in " ".join(check(later).notes)
    assert "max_grad_norm" not in check(folder).study.config.train


def test_unknown_preset_of_made_study_loads(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preset_filling, "PRESETS", {})
    assert check(made).study.config.lora["r"] == 8
    prepare(made, chosen=None, data_root=None)
    other = made.with_name("other.yaml")
    other.write_text(FILE.replace("tuned", "other"))
    with pytest.raises(StudyFileError, match=r"other\.yaml:2: space='lora-default' is no known preset"):
        check(other)


def test_edited_values_are_refused(later: Path) -> None:
    later.write_text(FILE.replace("r: 8", "r: 16"))
    with pytest.raises(StudyFileError, match="whose `lora` differs"):
        prepare(later, chosen=None, data_root=None)


def test_provenance_names_preset_and_keys(made: Path) -> None:
    folder = prepare(made, chosen=None, data_root=None).folder
    found = preset_in(folder, folder.read_resolved().values)
    assert found is not None
    assert found[0] == "lora-default"
    assert "train.learning_rate" in found[1]
    assert "lora.r" not in found[1]
    rows = study_provenance_rows(study_provenance(folder, []))
    assert rows["space"].startswith("preset lora-default: lora.lora_alpha, ")


def test_mapping_in_python_takes_preset(tmp_path: Path) -> None:
    values = {
        "name": "other",
        "space": "full-default",
        "model": {"path": "some/model"},
        "data": {"path": "some/rows", "prompt": "alpaca"},
        "score": {"objective": {"task": "hellaswag", "metric": "acc_norm"}},
        "budget": {"trials": 4},
    }
    study = Study.from_dict(values, folder=tmp_path)
    assert [r.name for r in check(study.path).study.space.searched] == [
        one.key for one in PRESETS["full-default"].ranges if isinstance(one.value, dict)
    ]
