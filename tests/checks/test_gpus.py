"""Which GPUs a process may use, and how they are divided among trials."""

from __future__ import annotations

import pytest

from hpotune.checks.gpus import gpu_groups, visible_gpus
from hpotune.errors import StudyFileError


@pytest.mark.parametrize(
    ("named", "found"),
    [("", []), ("-1", []), ("3", ["3"]), ("0,1,-1,2", ["0", "1"]), ("GPU-a, 2", ["GPU-a", "2"])],
)
def test_visible_gpus_follow_cuda(named, found):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}) == found


def test_gpus_are_dealt_in_groups():
    assert gpu_groups(["0", "1", "2"], each=1) == ["0", "1", "2"]
    assert gpu_groups(["0", "1", "2"], each=2) == ["0,1"]
    assert gpu_groups([], each=2) == gpu_groups(["0"], each=0) == []
    with pytest.raises(
        StudyFileError, match=r"resources.gpus=2, and this machine has 1 GPUs; write at most 1"
    ):
        gpu_groups(["0"], each=2)
