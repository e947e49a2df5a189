"""TensorBoard reads back what was sent, in the single precision of its scalars, once for each trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpotune.exchange.trackers.tensorboard_tracker import TensorBoardTracker
from tests.exchange.trackers.conftest import SentStudy

pytest.importorskip("tensorboard", reason="pip install 'hpotune[tensorboard]'")


def scalars(folder: Path) -> dict[str, list[tuple[int, np.float32]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [(one.step, make_ndarray(one.tensor_proto).item()) for one in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
        if found.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
    }


def hparams(folder: Path, tag: str) -> object:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = EventAccumulator(str(folder)).Reload()
    return HParamsPluginData.FromString(found.SummaryMetadata(tag).plugin_data.content)


def test_scalars_are_read_back(sent_study: SentStudy, tmp_path: Path) -> None:
    board = tmp_path / "board"
    sent_study.sync(TensorBoardTracker(board))
    for row in sent_study.rows:
        found = scalars(board / f"trial-{row.number}")
        expected = [(step, float(np.float32(loss))) for step, loss in sent_study.losses(row.number)]
        assert found.get("train/loss", []) == expected
        numbers = {name: float(np.float32(value)) for name, value in sent_study.numbers(row).items()}
        assert {name: found[name][-1][1] for name in numbers} == numbers
        start = hparams(board / f"trial-{row.number}", "_hparams_/session_start_info").session_start_info
        read = {name: one.number_value for name, one in start.hparams.items()}
        assert read == dict(row.params)
        end = hparams(board / f"trial-{row.number}", "_hparams_/session_end_info").session_end_info
        assert end.status == 1  # success
    study = hparams(board, "_hparams_/experiment").experiment
    assert [one.name.tag for one in study.metric_infos] == ["toy_topics/acc"]
    before = sorted(board.rglob("events.*"))
    sent_study.sync(TensorBoardTracker(board))
    assert sorted(board.rglob("events.*")) == before
    sent_study.sync(TensorBoardTracker(board), again=True)
    assert len(list(board.rglob("events.*"))) == len(before) == 4
