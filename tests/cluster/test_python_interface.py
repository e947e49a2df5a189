"""`hpotune.Study` on a real Slurm: submit, wait, cancel, resume."""

from __future__ import annotations

from pathlib import Path

import pytest

import hpotune as library
from tests.fixtures.cluster_studies import RESOURCES, function_study

pytestmark = pytest.mark.slurm


def test_study_is_cancelled_and_resumed(slurm_cluster: Path, tmp_path: Path) -> None:
    waits = f"while not os.path.exists({str(tmp_path / 'open')!r}):\n        time.sleep(0.2)"
    study = library.Study.load(function_study(tmp_path, waits, RESOURCES, trials=3))
    submitted = study.submit().submitted
    with pytest.raises(library.errors.WaitTimeout):
        study.wait(timeout=0)
    cancelled = {one.partition("_")[0] for one in study.cancel()}  # elements of an array
    assert cancelled >= {submitted[-1]}
    assert study.wait(timeout=240, every=1).state == "cancelled"
    (tmp_path / "open").touch()
    again = study.resume()
    assert getattr(again, "submitted", ())
    assert study.wait(timeout=240, every=1).state == "done"
    assert [trial.state for trial in study.trials] == ["finished"] * 3
