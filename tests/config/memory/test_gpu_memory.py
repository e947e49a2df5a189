"""The memory of a GPU by the name of its type."""

from __future__ import annotations

import pytest

from hpotune.config.memory.gpu_memory import gpu_memory
from hpotune.config.schema.resources import ResourcesConfig


@pytest.mark.parametrize(
    ("gpus", "size"),
    [
        ("a100:4", 40),
        ("A100-80GB:2", 80),
        ("nvidia_a100_80gb:1", 80),
        ("nvidia_h100_80gb_hbm3:1", 80),
        ("1g.10gb:2", 10),
        ("v100-32:1", 32),
        ("rtx_3090:1", 24),
        ("rtx3090:1", 24),
        ("h200:8", 141),
        ("2080ti:1", 11),
        ("something:1", None),
        (4, None),
    ],
)
def test_types_name_their_memory(gpus: str | int, size: int | None) -> None:
    found = gpu_memory(ResourcesConfig(gpus=gpus))
    assert (found.size if found is not None else None) == size


def test_study_file_has_precedence() -> None:
    found = gpu_memory(ResourcesConfig(gpus="a100:1", gpu_memory_gb=80))
    assert found is not None
    assert (found.size, found.source) == (80, "resources.gpu_memory_gb")
    assert 76 < found.tensors_gib < 78


def test_smallest_size_is_said() -> None:
    found = gpu_memory(ResourcesConfig(gpus="a100:1"))
    assert found is not None
    assert "smallest" in found.source
