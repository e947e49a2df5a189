"""The output of several ranks goes into the log of the trial that they run."""

from __future__ import annotations

import os
from pathlib import Path

from hpotune.worker.objective.rank_log import RankLog


def test_output_goes_to_current_trial(tmp_path: Path) -> None:
    log = RankLog(tmp_path / "1")
    ranks = os.dup(log.pipe)
    log.start()
    os.write(ranks, b"of trial 1\n")
    log.move_to(tmp_path / "2")
    os.write(ranks, b"of trial 2\n")
    os.close(ranks)
    log.close()
    assert [(tmp_path / name / "log.txt").read_text() for name in "12"] == ["of trial 1\n", "of trial 2\n"]


def test_full_disk_does_not_block(tmp_path: Path) -> None:
    log = RankLog(tmp_path / "1")
    log._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    ranks = os.dup(log.pipe)
    log.start()
    for _ in range(20):
        os.write(ranks, b"x" * 65536)  # would wait for ever in a full pipe
    os.close(ranks)
    log.close()
