"""Causes of failure, found in the last lines that programs print."""

from __future__ import annotations

import pytest

from hpotune.records.failure_causes import cause_of, cause_of_error, hidden_reason


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


DIRECT = "The above exception was the direct cause of the following exception:"
HANDLED = "During handling of the above exception, another exception occurred:"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["ValueError: x"], ""),
        (["Traceback:", "  File", "KeyError: 'a'", HANDLED, "Traceback:", "ValueError: x"], ""),
        (["Traceback:", "KeyError: 'a'", DIRECT, "Traceback:", "ValueError: x"], "KeyError: 'a'"),
        (["A: a", HANDLED, "B: b", DIRECT, "C: c", DIRECT, "D: d"], "B: b"),
    ],
)
def test_hidden_reason_follows_direct_causes(lines, reason):
    assert hidden_reason(lines) == reason


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "oom"),
        (OSError(30, "Read-only file system"), "store"),
        (OSError(107, "Transport endpoint is not connected"), "node"),
        (PermissionError(13, "Permission denied"), "user"),
        (FileNotFoundError(2, "No such file"), None),
        (RuntimeError("CUDA error: uncorrectable ECC error"), "node"),
        (KeyError("out of memory"), None),
        (ValueError("no column xid"), None),
    ],
)
def test_error_names_its_cause(error, cause):
    assert cause_of_error(error) == cause
