"""What may not stand in the sections that make the job script."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hpotune.config.schema.resources import ResourcesConfig


@pytest.mark.parametrize(
    ("gpus", "number"),
    [
        (2, 2),
        ("2", 2),
        ("A100:4", 4),
        ("2080ti:2", 2),
        ("3090:1", 1),
        ("1g.10gb:7", 7),
        ("nvidia_a100_80gb_pcie:4", 4),
        ("a100_1g.10gb:1", 1),
    ],
)
@pytest.mark.parametrize("option", ["gpus-per-node", "gres"])
def test_gpus_are_counted_by_node(gpus, number, option):
    assert ResourcesConfig(gpus=gpus, gpu_option=option).gpus_per_node == number


@pytest.mark.parametrize(
    "gpus",
    ["A100", ":4", "a:b:4", "A100:", "A 100:4", "-1", "gpu:a100:4", "a100:4(S:0)", "2080ti"],
)
def test_gpus_without_number_are_refused(gpus):
    with pytest.raises(ValidationError, match="needs a number of GPUs per node, or TYPE:NUMBER"):
        ResourcesConfig(gpus=gpus)


@pytest.mark.parametrize("gpus", ["3090", 3090, "a100:3090"])
def test_type_is_no_number_of_gpus(gpus):
    with pytest.raises(ValidationError, match="too many for a node: needs at most 128"):
        ResourcesConfig(gpus=gpus)
