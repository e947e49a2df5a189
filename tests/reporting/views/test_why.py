"""Why a trial ended: cause, attempts, what the rules did, advice, and the right log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpotune.config.load import Study
from hpotune.errors import StudyFileError
from hpotune.records.trial import Attempt, Failure, TrialRow, Worker
from hpotune.reporting.views.why import RunningAttempt, WhyResult, why_result
from hpotune.reporting.why_table import why_table
from hpotune.storage import Claim, TrialQueue
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import FINETUNE, NOW, UNIX, config, finished, printed, running
from tests.fixtures.store_workers import worker

LOGS = Path(__file__).parents[1] / "logs"


def ended(
    outcome: str = "failed",
    cause: str | None = "node",
    *,
    message: str = "m",
    host: str = "n1",
    job: str = "5_0",
    **more: Any,
) -> Attempt:
    me = Worker(job=job, host=host, pid=1)
    return Attempt(
        worker=me, start=UNIX - 600, end=UNIX - 60, outcome=outcome, cause=cause, message=message, **more
    )


def failed(number: int, *attempts: Attempt, params: dict[str, Any] | None = None, **more: Any) -> TrialRow:
    last = attempts[-1]
    failure = Failure.model_validate({"cause": last.cause, "message": last.message})
    return TrialRow(
        number=number, kind="trial", state="failed", params=params or {}, failure=failure, attempts=attempts,
        worker=last.worker, **more,
    )  # fmt: skip


def paused(number: int, *attempts: Attempt) -> TrialRow:
    return TrialRow(number=number, kind="trial", state="waiting", params={}, attempts=attempts)


def log(folder: StudyFolder, number: int, name: str) -> None:
    file = folder.trial(number) / "log.txt"
    file.parent.mkdir(parents=True)
    file.write_text((LOGS / f"{name}.txt").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(path=tmp_path)


def text(result: WhyResult) -> str:
    return printed(why_table(result, now=NOW), width=240)


def test_failed_trial_is_explained(folder: StudyFolder) -> None:
    log(folder, 3, "torch_oom")
    attempts = (
        ended("paused", "preempted", message="made room"),
        ended(cause="oom", message="out of memory", host="n2"),
    )
    row = failed(
        3, *attempts, params={"train.per_device_train_batch_size": 32}, metrics={"peak_memory_gb": 38.2}
    )
    result = why_result(folder, config(**FINETUNE), [finished(0), row], 3)
    assert (result.state, result.cause) == ("failed", "oom")
    assert [(one.host, one.seconds, one.outcome) for one in result.attempts] == [
        ("n1", 540, "paused"), ("n2", 540, "failed"),
    ]  # fmt: skip
    assert result.lines[-1].startswith("torch.OutOfMemoryError")
    shown = text(result)
    assert "trial 3: failed (oom)" in shown
    assert "retry.oom: 0, so it is not retried" in shown
    assert "counted against budget.max_failed: 1 failed, 5 allowed" in shown
    assert "it used 38.2 GB at its peak: lower train.per_device_train_batch_size (here 32)" in shown
    assert "2        n2" in shown
    assert shown.count("out of memory") == 2  # above, and in the traceback
    assert "made room" in shown


def test_finished_trial_has_no_log_lines(folder: StudyFolder) -> None:
    log(folder, 0, "torch_oom")
    result = why_result(folder, config(), [finished(0)], 0)
    assert (result.state, result.cause, result.advice, result.lines) == ("finished", None, None, ())
    assert "trial 0: finished" in text(result)
    assert "n1" in text(result)


def test_running_trial_names_its_worker(folder: StudyFolder) -> None:
    result = why_result(folder, config(), [running(4)], 4)
    assert result.running == RunningAttempt(job="5_0", host="n1", start=UNIX - 600)
    assert "running" in text(result)


@pytest.mark.parametrize(
    ("rows", "known"),
    [([], "the study has no trials yet"), ([finished(0), finished(7)], "the study has trials 0 to 7")],
)
def test_unknown_trial_names_the_range(folder: StudyFolder, rows: list[TrialRow], known: str) -> None:
    with pytest.raises(StudyFileError, match=f"trial 9: no such trial; {known}"):
        why_result(folder, config(), rows, 9)


NODE = ended(cause="node", message="CUDA error: uncorrectable ECC error")
BACK = replace(NODE, outcome="paused")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (paused(1), "no worker has started it yet"),
        (paused(1, BACK), "retry.node: 1 of 2 retries used; it waits for a worker and continues"),
        (failed(1, BACK, BACK, NODE), "retry.node: 2 of 2 retries used, then it failed"),
        (failed(1, BACK, BACK, NODE), "not counted against budget.max_failed"),
        (paused(1, ended("paused", "timeout")), "retry.timeout: 1 retries so far; no limit"),
        (failed(1, NODE, forgiven=True), "forgiven by `hpotune retry`"),
        (failed(1, NODE, retry_of=0), "repeats the point of trial 0"),
        (failed(1, NODE), "new jobs exclude node n1: CUDA error: uncorrectable ECC error"),
    ],
)
def test_rules_are_explained(folder: StudyFolder, row: TrialRow, sentence: str) -> None:
    assert any(sentence in line for line in why_result(folder, config(), [row], 1).policy)


def test_repeating_trial_is_named(folder: StudyFolder) -> None:
    again = replace(finished(5), retry_of=1)
    assert "trial 5 repeats its point" in why_result(folder, config(), [failed(1, NODE), again], 1).policy


WORKER_LOG = (
    "2026-11-20 11:00:00 trial 2 starts: {'x': 1}\nold words of trial 2\n2026-11-20 11:10:00 trial 7 starts: {'x': 2}\n"
    "words of trial 7\nslurmstepd: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-20T11:20:00 DUE TO TIME LIMIT ***\n"
)


def test_log_of_job_replaces_empty_log(folder: StudyFolder) -> None:
    for name in ("5_0_0_log.out", "5_1_0_log.out"):
        file = folder.jobs / "5" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(WORKER_LOG if name.startswith("5_0") else WORKER_LOG.replace("words", "wrong words"))
    result = why_result(folder, config(), [failed(7, ended(cause="timeout", ended_by_other=True))], 7)
    assert result.log == folder.jobs / "5" / "5_0_0_log.out"
    assert result.lines == tuple(WORKER_LOG.splitlines()[-2:])
    result = why_result(folder, config(), [failed(2, ended(cause="timeout", ended_by_other=True))], 2)
    assert result.lines == ("old words of trial 2",)


def test_log_of_hand_written_job(folder: StudyFolder) -> None:
    file = folder.path / "slurm-5_0.out"
    file.write_text(WORKER_LOG)
    row = failed(7, ended(cause="timeout", ended_by_other=True))
    result = why_result(folder, config(), [row], 7, logs_of=lambda job: [file] if job == "5_0" else [])
    assert result.log == file
    assert result.lines == tuple(WORKER_LOG.splitlines()[-2:])


def test_worker_that_cannot_start_is_named(folder: StudyFolder) -> None:
    (folder.jobs / "5").mkdir(parents=True)
    (folder.jobs / "5" / "job.json").write_text("{}")
    (folder.jobs / "5" / "5_0_0_log.out").write_text(
        "slurmstepd: error: execve(): /e/python: No such file or directory\n"
    )
    shown = text(why_result(folder, config(), [paused(1)], 1))
    assert "no worker has started it yet" in shown
    assert "its worker could not start: /e/python: No such file or directory" in shown


def test_log_of_killed_job_comes_first(folder: StudyFolder) -> None:
    own = folder.trial(7) / "log.txt"
    own.parent.mkdir(parents=True)
    own.write_text("ValueError: caught by the program\n")
    file = folder.jobs / "5" / "5_0_0_log.out"
    file.parent.mkdir(parents=True)
    file.write_text(WORKER_LOG)
    result = why_result(folder, config(), [failed(7, ended(cause="timeout", ended_by_other=True))], 7)
    assert "TIME LIMIT" in result.lines[-1]
    result = why_result(folder, config(), [failed(7, ended(cause="user"))], 7)
    assert result.lines == ("ValueError: caught by the program",)


def test_local_log_is_the_workers_own(folder: StudyFolder) -> None:
    for index, number in enumerate((7, 8)):
        file = folder.jobs / "local" / f"worker-{index}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"2026-11-20 11:00:00 trial {number} starts: x\nwords of trial {number}\n")
    result = why_result(folder, config(), [failed(8, ended(cause="killed", job="local"))], 8)
    assert result.log == folder.jobs / "local" / "worker-1.log"
    assert result.lines[-1] == "words of trial 8"


def test_old_failure_without_attempts_is_shown(folder: StudyFolder) -> None:
    row = replace(failed(1, NODE), attempts=(), start=UNIX - 600, end=UNIX)
    assert [one.seconds for one in why_result(folder, config(), [row], 1).attempts] == [600]


def test_verbs_on_a_real_study(
    tmp_path: Path, make_study: Callable[..., Study], make_study_folder: Callable[..., StudyFolder]
) -> None:
    url = f"sqlite:///{tmp_path}/store"
    study = make_study(budget={"trials": 1, "max_failed": 3})
    folder = make_study_folder(study, url)
    store = TrialQueue.create(url, study, folder=str(folder.path))
    claim = store.claim(worker())
    assert isinstance(claim, Claim)
    store.record_failure(claim.trial_id, Failure(cause="user", message="KeyError: 'x'"), owner=worker())
    log(folder, 0, "user_chained")
    found = json.loads(called("why", str(folder.path), "0", "--json"))
    last = "FileNotFoundError: no data for alpaca; tried 2 places"  # words: ignore
    assert (found["cause"], found["lines"][-1]) == ("user", last)
    assert "retry.user: 0, so it is not retried" in called("why", str(folder.path), "0")
    assert "no such trial; the study has trials 0 to 1" in called("why", str(folder.path), "9", code=2)
    assert json.loads(called("status", str(folder.path), "--json"))["trials"]["failed"] == 1
    assert "KeyError" in called("trials", str(folder.path))


def called(*arguments: str, code: int = 0) -> str:
    """What hpotune printed; stderr where it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "hpotune", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout
