"""Export of a setting: a study file without ranges, and refusals before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.config.load import Study, load_study
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.exchange.setting_export import FORMATS, export_setting
from hpotune.workspace.folder import StudyFolder
from tests.exchange.conftest import Tuned
from tests.fixtures.report_rows import finished


def test_study_file_has_no_ranges(tuned: Tuned, tmp_path: Path) -> None:
    written = export_setting(
        tuned.folder, tuned.study, tuned.rows, out=tmp_path / "out", number=1, form="study"
    )
    study = load_study(written.file)
    assert study.space.ranges == ()
    assert study.config.lora["lora_alpha"] == 8
    assert study.config.budget.trials == 2  # the baseline and this trial
    assert study.point({}) == tuned.study.point(tuned.rows[0].params)


def test_unknown_format_names_the_nearest(tuned: Tuned, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="'axolotel'.*did you mean 'axolotl'"):
        export_setting(tuned.folder, tuned.study, tuned.rows, out=tmp_path / "o", number=1, form="axolotel")


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "study"])
def test_function_has_no_tool_config(form: str, make_study: Callable[..., Study], tmp_path: Path) -> None:
    rows = [finished(1, 0.5, params={"params.x": 0.25})]
    with pytest.raises(StudyFileError, match="has python: instead of a model"):
        export_setting(
            StudyFolder(path=tmp_path), make_study(), rows, out=tmp_path / "out", number=1, form=form
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_lost_data_leaves_nothing(tuned: Tuned, tmp_path: Path) -> None:
    rows = Path(tuned.study.config.data.path)  # type: ignore[union-attr]
    moved = rows.rename(rows.with_name("moved.jsonl"))
    try:
        with pytest.raises(HpotuneError, match=r"rows\.jsonl"):
            export_setting(tuned.folder, tuned.study, tuned.rows, out=tmp_path / "out", number=1, form="trl")
    finally:
        moved.rename(rows)
    assert list(tmp_path.iterdir()) == []
