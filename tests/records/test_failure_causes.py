"""Causes of failure, found in the last lines that programs print."""

from __future__ import annotations

import pytest

from hpotune.records.failure_causes import cause_of


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "oom"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", "oom"),
        ("OSError: [Errno 12] Cannot allocate memory", "oom"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "oom"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "node"),
        ("torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1333", "node"),
        ("ncclSystemError: System call (e.g. socket, malloc) or external library call failed", "node"),
        ("RuntimeError: No CUDA GPUs are available", "node"),
        ("RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", "node"),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", "node"),
        ("OSError: [Errno 116] Stale file handle", "node"),
        ("OSError: [Errno 28] No space left on device", "store"),
        ("OSError: [Errno 122] Disk quota exceeded", "store"),
        ("ValueError: learning_rate must be positive", None),
        ("RuntimeError: CUDA error: device-side assert triggered", None),
        ("KeyError: 'bloom'", None),
    ],
)
def test_a_line_names_its_cause(line, cause):
    found = cause_of(["starting", line, "done"])
    assert found == ((cause, line) if cause else None)


def test_rank_out_of_memory_is_cause():
    lines = ["CUDA out of memory on rank 1", "NCCL error: remote process exited"]
    assert cause_of(lines) == ("oom", lines[0])
