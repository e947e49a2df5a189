"""The lines that show the cause, in logs as torch, NCCL, torchrun, srun and shells write them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from hpotune.reporting.log_excerpt import LINES, WIDTH, excerpt

LOGS = Path(__file__).parent / "logs"


class Case(NamedTuple):
    """A log, what is known of the failure, and what its excerpt begins and ends with."""

    log: str
    cause: str
    first: str
    last: str
    message: str = ""
    without: tuple[str, ...] = ()


TRACEBACK = "Traceback (most recent call last):"
CASES = [
    Case("torch_oom", "oom", TRACEBACK, "torch.OutOfMemoryError: CUDA out of memory", without=("UserWarning", "it/s")),
    Case("nccl_watchdog", "node", "[E1120 12:31:40.112231870", "[E1120 12:31:40.119011112", without=("frame #",)),
    Case("nan", "nan", TRACEBACK, "hpotune.trial.errors.NotFinite: the loss is nan at step 31", without=("step 29",)),
    Case("nan_of_ones_own", "nan", "epoch 0 loss 2.1", '{"value": NaN}'),
    Case("user_chained", "user", TRACEBACK, "FileNotFoundError: no data for alpaca; tried", without=("reading data",)),
    Case("deep", "user", "    f21()", "RecursionError: maximum recursion depth exceeded"),
    Case("caught_then_killed", "killed", "step 180 ", "step 199 loss 0.199", without=("ConnectionError",)),
    Case("srun_bad_exit", "user", TRACEBACK, "OSError: [Errno 116] Stale file", without=("Connection closed", "srun:")),
    Case("srun_bad_exit_alone", "user", "step 26", "srun: Job step aborted"),
    Case("torchrun_elastic", "user", TRACEBACK, "AssertionError: label beyond", without=("DistBackend", "Root Cause")),
    Case("torchrun_sigkill", "killed", "", "====", without=("frozen runpy",)),
    Case("oom_killer", "oom", "step 26", "srun: Terminating StepId=814.0"),
    Case("not_found", "user", "bash: line 1: trian.py: command not found", "bash: line 1: trian.py"),
    Case("two_attempts", "user", TRACEBACK, "ValueError: a batch of 0 rows", without=("ECC",)),
    Case("validation", "user", TRACEBACK, "  Input should be greater than 0"),
    Case("repeated", "user", "waiting for the server  (50 times)", "gave up"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.log)
def test_excerpt_shows_the_cause(case: Case) -> None:
    text = (LOGS / f"{case.log}.txt").read_text()
    found = excerpt(text, cause=case.cause, message=case.message).lines
    assert len(found) <= LINES
    assert found[0].startswith(case.first)
    assert found[-1].startswith(case.last)
    assert [word for word in case.without if any(word in line for line in found)] == []


def test_killed_rank_is_named_by_launcher() -> None:
    found = excerpt((LOGS / "torchrun_sigkill.txt").read_text(), cause="killed").lines
    assert any("Signal 9 (SIGKILL) received by PID 4002" in line for line in found)


def test_first_failed_rank_is_preferred() -> None:
    text = (
        "[rank0]: Traceback (most recent call last):\n[rank0]:   File 'a'\n[rank0]: ValueError: zero\n"
        "[rank1]: Traceback (most recent call last):\n[rank1]:   File 'a'\n[rank1]: ValueError: one\n"
        "Root Cause (first observed failure):\n[0]:\n  rank      : 1 (local_rank: 1)\n"
    )
    assert excerpt(text).lines[-1] == "ValueError: one"


def test_error_of_the_message_is_chosen() -> None:
    one = "Traceback (most recent call last):\n  File 'a', line 1\nKeyError: 'not so important to anybody'\n"
    other = (
        "Traceback (most recent call last):\n  File 'b', line 1\nValueError: the rank must be even, not 3\n"
    )
    message = "ValueError: the rank must be even, not 3"
    assert excerpt(one + other, message=message).lines[-1] == message


def test_excerpt_names_the_rank() -> None:
    assert excerpt((LOGS / "nccl_watchdog.txt").read_text(), cause="node").rank == 2
    assert excerpt((LOGS / "torch_oom.txt").read_text(), cause="oom").rank is None


def test_log_without_error_shows_last_lines() -> None:
    found = excerpt("".join(f"line {n}\n" for n in range(100)))
    assert not found.error
    assert found.lines == tuple(f"line {n}" for n in range(80, 100))


def test_empty_log_has_no_lines() -> None:
    assert excerpt("").lines == ()


def test_progress_bar_shows_last_state() -> None:
    bars = (
        "\r".join(f"{p}%|###| {p}/100" for p in range(10))
        + "\n"
        + "\n".join(f"{p}%|#| {p}" for p in range(5))
    )
    assert excerpt(f"\x1b[31mred\x1b[0m\n{bars}\nend").lines == ("red", "4%|#| 4", "end")


def test_long_line_is_cut() -> None:
    assert len(excerpt("x" * 1_000_000).lines[0]) <= WIDTH + 1


def test_empty_attempt_shows_the_one_before() -> None:
    assert excerpt("ValueError: bad\n--- hpotune: another attempt at this trial ---\n").lines == (
        "ValueError: bad",
    )


def traceback_of(error: str, *, frames: int = 15) -> list[str]:
    """A traceback with this exception at its end."""
    lines = [
        text for n in range(frames) for text in (f'  File "/l/f{n}.py", line {n}, in f{n}', f"    f{n + 1}()")
    ]
    return [TRACEBACK, *lines, *error.splitlines()]


DIRECT = ["", "The above exception was the direct cause of the following exception:", ""]
HANDLED = ["", "During handling of the above exception, another exception occurred:", ""]
REASON, OUTER, HANDLER = (
    "ArrowInvalid: JSON parse error in row 8",
    "ValueError: no rows",
    "KeyError: 'cached'",
)


@pytest.mark.parametrize(
    ("lines", "shown", "hidden"),
    [
        ([*traceback_of(REASON), *DIRECT, *traceback_of(OUTER)], [REASON, OUTER], []),
        (
            [*traceback_of(REASON), *DIRECT, *traceback_of("A: b"), *DIRECT, *traceback_of(OUTER)],
            [REASON, OUTER],
            ["A: b"],
        ),
        ([*traceback_of(HANDLER), *HANDLED, *traceback_of(OUTER)], [OUTER], [HANDLER]),
        (
            [*traceback_of(HANDLER), *HANDLED, *traceback_of(REASON), *DIRECT, *traceback_of(OUTER)],
            [REASON, OUTER],
            [HANDLER],
        ),
        (traceback_of("E: mismatch:\n" + "\n".join(f"\tw{n}" for n in range(40))), ["E: mismatch:", "\tw0"], ["\tw39"]),
    ],
)  # fmt: skip
def test_hidden_reason_is_shown(lines: list[str], shown: list[str], hidden: list[str]) -> None:
    found = excerpt("\n".join(["starting", *lines]), cause="data").lines
    assert len(found) <= LINES
    assert [line for line in shown if line not in found] == []
    assert [line for line in hidden if line in found] == []
