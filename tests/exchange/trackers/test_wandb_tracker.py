"""Offline runs of Weights & Biases hold what was sent, once for each trial; without a key there is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.errors import StudyFileError
from hpotune.exchange.trackers.wandb_tracker import WandbTracker
from tests.exchange.trackers.conftest import SentStudy
from tests.fixtures.wandb_files import read_offline_run

pytest.importorskip("wandb", reason="pip install 'hpotune[wandb]'")


def test_offline_runs_are_read_back(sent_study: SentStudy, tmp_path: Path) -> None:
    written = tmp_path / "runs"

    def folders() -> dict[str, Path]:
        return {path.name.rpartition("-")[2]: path for path in (written / "wandb").glob("offline-run-*")}

    done = sent_study.sync(WandbTracker(written, project="tuning", offline=True))
    assert done.next.startswith(f"where there is a network: wandb sync {written}/wandb/offline-run-*")
    first = folders()
    assert set(first) == {"0", "1", "2"}
    for row in sent_study.rows:
        found = read_offline_run(first[str(row.number)])
        losses = [(one["_step"], one["train/loss"]) for one in found.history if "train/loss" in one]
        assert losses == sent_study.losses(row.number)
        numbers = sent_study.numbers(row)
        assert {name: found.summary[name] for name in numbers} == numbers
        assert {
            f"{head}.{name}": value
            for head in ("lora", "train")
            for name, value in found.config.get(head, {}).items()
        } == dict(row.params)
        assert found.config["hpotune"]["trial"] == row.number
        assert (found.run.project, found.exit_code) == ("tuning", 0)
        assert found.run.run_group.startswith("small-")
    assert sent_study.sync(WandbTracker(written, project="tuning", offline=True)).sent == ()
    assert folders() == first
    sent_study.sync(WandbTracker(written, project="tuning", offline=True), again=True)
    assert len(list((written / "wandb").glob("offline-run-*"))) == 3
    assert not set(folders().values()) & set(first.values())


def test_missing_key_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(StudyFileError, match=r"no API key here; run `wandb login`, or give --offline"):
        WandbTracker(tmp_path, project=None, offline=False)
