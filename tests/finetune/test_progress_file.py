"""The progress of a trial as its process writes it: phases, steps now and then, and no harm from a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.finetune.progress_file import ProgressFile
from hpotune.records.progress_record import PROGRESS, ProgressRecord


def record(folder: Path) -> ProgressRecord:
    return ProgressRecord.model_validate_json((folder / PROGRESS).read_text())


def test_steps_are_written_in_intervals(tmp_path: Path) -> None:
    now = 100.0
    progress, written = ProgressFile(folder=tmp_path, clock=lambda: now), []
    with progress.phase("train"):
        for step in range(201):  # ten steps a second
            progress.count(step + 40, 240)
            found = record(tmp_path)
            if not written or found.step != written[-1].step:
                written.append(found)
            now = 100.0 + (step + 1) / 10
    assert [one.seconds for one in written] == [0, 1, 2, 4, 8, 13, 18]
    assert [one.step for one in written] == [40 + round(10 * (one.seconds or 0)) for one in written]
    assert {(one.first_step, one.steps) for one in written} == {(40, 240)}


def test_inner_phase_hides_outer_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    progress = ProgressFile(folder=tmp_path)
    with progress.phase("train"):
        progress.count(3, 8)
        with progress.phase("checkpoint"):
            assert (record(tmp_path).phase, record(tmp_path).steps) == ("checkpoint", None)
        assert (record(tmp_path).phase, record(tmp_path).step) == ("train", 3)
    with progress.phase("score", task="x" * 500):
        assert record(tmp_path).task == "x" * 200
    progress.remove()
    assert not list(tmp_path.iterdir())
    lines = [line.partition(" phase: ")[2] for line in capfd.readouterr().err.splitlines()]
    assert lines == ["training", "writing a checkpoint", f"scoring {'x' * 200}"]


def test_unwritable_folder_ends_no_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a file, no folder"
    file.touch()
    full = Path("/dev/full").open("w")  # noqa: SIM115 - the log of the phases
    monkeypatch.setattr("hpotune.finetune.progress_file._LOG", full.fileno())
    progress = ProgressFile(folder=file)
    with progress.phase("train"):
        progress.count(1, 2)
        progress.count(2, 2)
    progress.remove()
    full.close()
    assert file.read_text() == ""
