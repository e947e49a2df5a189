"""Advice: one sentence for each cause of failure and each kind of stop reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from hpotune.config.schema.execution import Cause
from hpotune.records.stop_reason import StopKind, StopReason
from hpotune.records.trial import Failure, TrialRow
from hpotune.reporting.advice import failure_advice, stop_advice
from tests.fixtures.report_rows import FINETUNE, attempt, config


def advice(cause: Cause, *, point: dict[str, Any] | None = None, by_slurm: bool = False, **of: Any) -> str:
    """What is advised after a failure of this cause; `by_slurm`: Slurm reported the end, not the worker."""
    ended = attempt("failed", cause=cause, ended_by_other=by_slurm)
    failure = Failure(cause=cause, message="m")
    row = TrialRow(
        number=1, kind="trial", state="failed", params=point or {}, failure=failure, attempts=(ended,)
    )
    return failure_advice(config(**of), row, row.attempts, cause)


@pytest.mark.parametrize("cause", get_args(Cause))
def test_each_cause_has_one_line(cause: Cause) -> None:
    for of in ({}, FINETUNE):
        text = advice(cause, **of)
        assert text
        assert "\n" not in text
        assert "{" not in text


@pytest.mark.parametrize(
    ("cause", "params", "words"),
    [
        ("node", {}, "node n1"),
        ("timeout", {}, "raise resources.time (now 1:00:00)"),
        ("preempted", {}, "nothing to do"),
    ],
)
def test_advice_names_what_to_change(cause: Cause, params: dict[str, Any], words: str) -> None:
    assert words in advice(cause, point=params)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({}, "your function returned a value that is NaN or infinite"),
        ({"python": None, "command": "train {learning_rate}"}, "your command printed a value that is NaN"),
        (FINETUNE, "it diverged at train.learning_rate=0.03: the search learns from it"),
    ],
    ids=["function", "command", "fine-tuning"],
)
def test_nan_advice_follows_the_objective(sections: dict[str, Any], words: str) -> None:
    own = "model" not in sections
    params = {"params.learning_rate" if own else "train.learning_rate": 0.03}
    text = advice("nan", point=params, **sections)
    assert text.startswith(words)
    assert ("learning_rate" in text, "diverged" in text) == (not own, not own)


def test_nan_advice_without_a_drawn_rate() -> None:
    assert "lower train.learning_rate, or clip" in advice("nan", **FINETUNE)


def test_slurm_oom_is_main_memory() -> None:
    assert "raise resources.mem" in advice("oom", by_slurm=True, **FINETUNE)
    assert "per_device_train_batch_size" in advice("oom", **FINETUNE)


STOPS: dict[StopKind, str] = {
    "budget_used": "hpotune extend /s --trials +10",
    "goal_reached": "nothing to do: the goal is reached; for a better score copy /s/study.yaml, change name and goal",
    "plateau": "stop here: the search expects no better point; or copy /s/study.yaml, change name, and lower or remove "
    "budget.plateau",
    "max_failed": "fix the cause, then hpotune retry /s; or hpotune extend /s --max-failed +5",
    "max_diverged": "copy /s/study.yaml, change name, and narrow the ranges that diverge; or hpotune extend /s "
    "--max-failed +5",
    "equal_failures": "fix the cause, then hpotune retry /s",
    "gpu_hours": "hpotune extend /s --gpu-hours +10",
    "wall_time": "hpotune extend /s --wall-time +12:00:00",
    "until": "hpotune extend /s --until YYYY-MM-DD",
    "job_too_short": "raise resources.time",
    "list_done": "hpotune retry /s, once the cause of the failed trials is fixed",
}


@pytest.mark.parametrize("kind", get_args(StopKind))
def test_each_stop_kind_has_its_advice(kind: StopKind) -> None:
    """By the kind alone: the text says nothing here."""
    assert stop_advice(StopReason(kind=kind, text=""), Path("/s")) == STOPS[kind]


def test_folder_is_quoted_for_the_shell() -> None:
    reason = StopReason(kind="equal_failures", text="")
    assert stop_advice(reason, Path("/my study")).endswith("hpotune retry '/my study'")
