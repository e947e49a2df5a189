"""`hpotune why N`: cause, attempts, what the rules made of it, what to do, and the right log."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from hpotune.config.load import Study
from hpotune.config.schema.execution import Cause
from hpotune.errors import StudyFileError
from hpotune.records.trial import Attempt, Failure, TrialRow, Worker
from hpotune.report import tables
from hpotune.report.advice import advice
from hpotune.report.why import why
from hpotune.storage import Claim, Store
from hpotune.workspace.folder import StudyFolder
from tests.report.test_status_table import NOW, UNIX, config, finished, running
from tests.storage.conftest import worker

LOGS = Path(__file__).parent / "logs"
TUNED = {"python": None, "params": {}, "model": {"path": "m"}, "data": {"path": "d"}}


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


def text(told: dict[str, Any]) -> str:
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(tables.why(told, now=NOW))
    return console.export_text()


def test_a_failed_trial_says_its_cause_its_attempts_the_rule_and_the_lines(folder: StudyFolder) -> None:
    log(folder, 3, "torch_oom")
    attempts = (
        ended("paused", "preempted", message="made room"),
        ended(cause="oom", message="out of memory", host="n2"),
    )
    row = failed(
        3, *attempts, params={"train.per_device_train_batch_size": 32}, metrics={"peak_memory_gb": 38.2}
    )
    told = why(folder, config(**TUNED), [finished(0), row], 3)
    assert (told["state"], told["cause"]) == ("failed", "oom")
    assert [(one["host"], one["seconds"], one["outcome"]) for one in told["attempts"]] == [
        ("n1", 540, "paused"), ("n2", 540, "failed"),
    ]  # fmt: skip
    assert told["lines"][-1].startswith("torch.OutOfMemoryError")
    said = text(told)
    assert "trial 3: failed (oom)" in said
    assert "retry.oom: 0, so it is not tried again" in said
    assert "counted against budget.max_failed: 1 failed, 5 allowed" in said
    assert "it held 38.2 GB at its peak: lower train.per_device_train_batch_size (here 32)" in said
    assert "2        n2" in said
    assert said.count("out of memory") == 2  # above, and in the traceback
    assert "made room" in said


def test_a_finished_trial_says_so_with_its_attempts_and_no_log(folder: StudyFolder) -> None:
    log(folder, 0, "torch_oom")
    told = why(folder, config(), [finished(0)], 0)
    assert (told["state"], told["cause"], told["advice"], told["lines"]) == ("finished", None, None, [])
    assert "trial 0: finished" in text(told)
    assert "n1" in text(told)


def test_a_running_trial_names_its_worker(folder: StudyFolder) -> None:
    told = why(folder, config(), [running(4)], 4)
    assert told["running"] == {"job": "5_0", "host": "n1", "start": UNIX - 600}
    assert "runs" in text(told)


@pytest.mark.parametrize(
    ("rows", "there"), [([], "has none yet"), ([finished(0), finished(7)], "are 0 to 7")]
)
def test_a_trial_that_is_not_there_is_one_line_with_the_range(
    folder: StudyFolder, rows: list[TrialRow], there: str
) -> None:
    with pytest.raises(StudyFileError, match=f"trial 9: there is no such trial; .*{there}"):
        why(folder, config(), rows, 9)


NODE = ended(cause="node", message="CUDA error: uncorrectable ECC error")
BACK = replace(NODE, outcome="paused")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (paused(1), "no worker has taken it yet"),
        (paused(1, BACK), "retry.node: 1 of 2 used; it waits for a worker and goes on"),
        (failed(1, BACK, BACK, NODE), "retry.node: 2 of 2 used, then it failed"),
        (failed(1, BACK, BACK, NODE), "not counted against budget.max_failed"),
        (paused(1, ended("paused", "timeout")), "retry.timeout: tried again 1 times; no limit"),
        (failed(1, NODE, forgiven=True), "forgiven by `hpotune retry`"),
        (failed(1, NODE, retry_of=0), "repeats the point of trial 0"),
        (failed(1, NODE), "node n1 is left out of new jobs: CUDA error: uncorrectable ECC error"),
    ],
)
def test_what_the_rules_made_of_it_is_told(folder: StudyFolder, row: TrialRow, sentence: str) -> None:
    assert any(sentence in said for said in why(folder, config(), [row], 1)["policy"])


def test_the_trial_that_repeats_a_failed_one_is_named(folder: StudyFolder) -> None:
    again = replace(finished(5), retry_of=1)
    assert "trial 5 repeats its point" in why(folder, config(), [failed(1, NODE), again], 1)["policy"]


@pytest.mark.parametrize("cause", get_args(Cause))
def test_each_cause_has_one_sentence_of_advice(cause: Cause) -> None:
    row = failed(1, ended(cause=cause))
    for given in (config(), config(**TUNED)):
        said = advice(given, row, row.attempts, cause)
        assert said
        assert "\n" not in said
        assert "{" not in said


@pytest.mark.parametrize(
    ("cause", "params", "word"),
    [
        ("nan", {"train.learning_rate": 0.03}, "train.learning_rate=0.03"),
        ("node", {}, "node n1"),
        ("timeout", {}, "raise resources.time (now 1:00:00)"),
        ("preempted", {}, "nothing to do"),
    ],
)
def test_the_advice_names_what_to_change(cause: Cause, params: dict[str, Any], word: str) -> None:
    row = failed(1, ended(cause=cause), params=params)
    assert word in advice(config(), row, row.attempts, cause)


def test_main_memory_is_told_from_the_memory_of_a_gpu() -> None:
    row = failed(1, ended(cause="oom", message="its job 5_0 ended as OUT_OF_MEMORY (exit 0:125) on n1"))
    assert "raise resources.mem" in advice(config(), row, row.attempts, "oom")


WORKER_LOG = (
    "2026-11-20 11:00:00 trial 2 starts: {'x': 1}\nold words of trial 2\n2026-11-20 11:10:00 trial 7 starts: {'x': 2}\n"
    "words of trial 7\nslurmstepd: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-20T11:20:00 DUE TO TIME LIMIT ***\n"
)


def test_where_the_trial_was_silent_its_jobs_log_is_read(folder: StudyFolder) -> None:
    for name in ("5_0_0_log.out", "5_1_0_log.out"):
        file = folder.jobs / "5" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(WORKER_LOG if name.startswith("5_0") else WORKER_LOG.replace("words", "wrong words"))
    told = why(folder, config(), [failed(7, ended(cause="timeout", swept=True))], 7)
    assert told["log"] == str(folder.jobs / "5" / "5_0_0_log.out")
    assert told["lines"] == WORKER_LOG.splitlines()[-2:]
    told = why(folder, config(), [failed(2, ended(cause="timeout", swept=True))], 2)
    assert told["lines"] == ["old words of trial 2"]


def test_of_a_worker_that_was_killed_the_jobs_log_goes_before_the_trials(folder: StudyFolder) -> None:
    own = folder.trial(7) / "log.txt"
    own.parent.mkdir(parents=True)
    own.write_text("ValueError: caught by the program\n")
    file = folder.jobs / "5" / "5_0_0_log.out"
    file.parent.mkdir(parents=True)
    file.write_text(WORKER_LOG)
    assert (
        "TIME LIMIT" in why(folder, config(), [failed(7, ended(cause="timeout", swept=True))], 7)["lines"][-1]
    )
    told = why(folder, config(), [failed(7, ended(cause="user"))], 7)
    assert told["lines"] == ["ValueError: caught by the program"]


def test_a_local_workers_log_is_the_one_that_had_the_trial(folder: StudyFolder) -> None:
    for index, number in enumerate((7, 8)):
        file = folder.jobs / "local" / f"worker-{index}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"2026-11-20 11:00:00 trial {number} starts: x\nwords of trial {number}\n")
    told = why(folder, config(), [failed(8, ended(cause="killed", job="local"))], 8)
    assert told["log"] == str(folder.jobs / "local" / "worker-1.log")
    assert told["lines"][-1] == "words of trial 8"


def test_an_older_failure_without_attempts_still_tells_where_it_ran(folder: StudyFolder) -> None:
    row = replace(failed(1, NODE), attempts=(), start=UNIX - 600, end=UNIX)
    assert [one["seconds"] for one in why(folder, config(), [row], 1)["attempts"]] == [600]


def test_the_verbs_on_a_real_study(
    tmp_path: Path, make_study: Callable[..., Study], make_study_folder: Callable[..., StudyFolder]
) -> None:
    url = f"sqlite:///{tmp_path}/store"
    study = make_study(budget={"trials": 1, "max_failed": 3})
    place = make_study_folder(study, url)
    store = Store.create(url, study, folder=str(place.path))
    claim = store.claim(worker())
    assert isinstance(claim, Claim)
    store.fail(claim.trial_id, Failure(cause="user", message="KeyError: 'x'"), owner=worker())
    log(place, 0, "user_chained")
    told = json.loads(called("why", str(place.path), "0", "--json"))
    assert (told["cause"], told["lines"][-1]) == (
        "user",
        "FileNotFoundError: no data for alpaca; tried 2 places",
    )
    assert "retry.user: 0, so it is not tried again" in called("why", str(place.path), "0")
    assert "there is no such trial; this study's are 0 to 1" in called("why", str(place.path), "9", code=2)
    assert json.loads(called("status", str(place.path), "--json"))["trials"]["failed"] == 1
    assert "KeyError" in called("trials", str(place.path))


def called(*arguments: str, code: int = 0) -> str:
    """What hpotune printed; stderr where it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "hpotune", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout
