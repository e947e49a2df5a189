"""Export of a study without a model; tests/test_end_to_end.py exports an adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hpotune.config.load import Study
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.exchange.export import export_trial
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import finished

ROWS = [
    finished(1, 0.5, params={"params.x": 0.25}),
    finished(2, 0.7, params={"params.x": 2.5}),
]
"""The objective is minimized: trial 1 is the best."""


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(path=tmp_path / "study")


def exported_x(out: Path) -> object:
    return yaml.safe_load((out / "setting.yaml").read_text())["params"]["x"]


def test_best_values_are_a_study_file(
    folder: StudyFolder, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study(constraints=["params.x < 3"])
    out = export_trial(folder, study, ROWS, out=tmp_path / "out", number=None, merge=False)
    assert exported_x(out) == 0.25
    assert "constraints" not in yaml.safe_load((out / "setting.yaml").read_text())


def test_another_trial_is_exported(
    folder: StudyFolder, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    out = export_trial(folder, make_study(), ROWS, out=tmp_path / "out", number=2, merge=False)
    assert exported_x(out) == 2.5


def test_existing_folder_is_refused(
    folder: StudyFolder, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    with pytest.raises(StudyFileError, match="exists already; give a folder that does not exist"):
        export_trial(folder, make_study(), ROWS, out=tmp_path, number=None, merge=False)


def test_merging_without_a_model_is_refused(
    folder: StudyFolder, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    with pytest.raises(StudyFileError, match="--merge: .* has no model to merge, since it has python:"):
        export_trial(folder, make_study(), ROWS, out=tmp_path / "out", number=None, merge=True)
    assert not (tmp_path / "out").exists()


def test_missing_trial_is_refused(
    folder: StudyFolder, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    with pytest.raises(StudyFileError, match="--trial 7 has not finished or is the baseline"):
        export_trial(folder, make_study(), ROWS, out=tmp_path / "out", number=7, merge=False)
    with pytest.raises(HpotuneError, match="no finished trial"):
        export_trial(folder, make_study(), [], out=tmp_path / "out", number=None, merge=False)
    assert not (tmp_path / "out").exists()
