"""What is sent and when: ended trials once, what changed again, secrets never; a missing library is one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hpotune.config.json_file import DamagedFileError
from hpotune.errors import HpotuneError
from hpotune.exchange.trackers.tracked_study import TrackedRun, TrackedStudy
from hpotune.records.trial import Failure, TrialRow
from tests.exchange.trackers.conftest import SentStudy

HIDE = "import sys; sys.modules.update(dict.fromkeys(('tensorboard', 'mlflow', 'wandb')))\n"
MAIN = "from hpotune.cli import main; main()"
TOKEN = "hf_" + "Ab3dE5gH7jK9mN1pQ3sT5vX7zB9dF1hJ3k"


@dataclass
class Kept:
    """A tracker in memory; it fails at the run of this name."""

    broken: str = ""
    runs: dict[str, TrackedRun] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    study: TrackedStudy | None = None
    destination: str = "memory"

    def begin(self, study: TrackedStudy) -> None:
        self.study = study

    def send(self, run: TrackedRun) -> None:
        if run.key == self.broken:
            raise ConnectionAbortedError(f"401: the key {TOKEN} is wrong")
        self.sent.append(run.key)
        self.runs[run.key] = run

    def end(self) -> str:
        return "look"


def test_each_trial_is_sent_once(sent_study: SentStudy) -> None:
    tracker = Kept(broken="trial-1")
    with pytest.raises(HpotuneError, match=r"^memory: 401: .*; 1 of 3 runs are there") as failed:
        replace(sent_study, rows=list(sent_study.rows)).sync(tracker)
    assert TOKEN not in str(failed.value)
    tracker.broken = ""
    done = sent_study.sync(tracker)
    assert (done.sent, done.unchanged) == (("trial-1", "trial-2"), 1)
    assert tracker.sent == ["trial-0", "trial-1", "trial-2"]
    assert sent_study.sync(tracker).sent == ()
    longer = [
        replace(row, metrics={**row.metrics, "more": 1.5}) if row.number == 2 else row
        for row in sent_study.rows
    ]
    running = replace(longer[1], state="running")
    changed = replace(sent_study, rows=[longer[0], running, longer[2]]).sync(tracker)
    assert (changed.sent, changed.unchanged, changed.active) == (("trial-2",), 1, 1)
    assert tracker.runs["trial-2"].scores["more"] == 1.5
    assert len(sent_study.sync(tracker, again=True).sent) == 3


def test_run_has_all_numbers(sent_study: SentStudy) -> None:
    tracker = Kept()
    sent_study.sync(tracker)
    for row in sent_study.rows:
        run = tracker.runs[f"trial-{row.number}"]
        assert run.params == dict(row.params)
        assert {name: run.scores[name] for name in sent_study.numbers(row)} == sent_study.numbers(row)
        assert run.scores["toy_topics/acc"] == row.values[0]
        assert run.scores["toy_topics/acc_stderr"] == row.stderrs[0]
        assert [(one.step, one.values["train/loss"]) for one in run.points] == sent_study.losses(row.number)
        assert run.tags["kind"] == row.kind
    assert len(tracker.runs["trial-1"].points) == 80


def test_no_secret_is_sent(sent_study: SentStudy) -> None:
    text = sent_study.folder.study_file.read_text()
    sent_study.folder.study_file.write_text(f"{text}# {TOKEN}\n")
    failure = {"cause": "user", "message": f"no access with {TOKEN}"}
    failed = TrialRow(
        number=3, kind="trial", state="failed", params={"model.path": f"https://me:{TOKEN}@host/m"},
        failure=Failure.model_validate(failure)
    )  # fmt: skip
    tracker = Kept()
    replace(sent_study, rows=[*sent_study.rows, failed]).sync(tracker)
    assert tracker.runs["trial-3"].state == "failed"
    assert tracker.runs["trial-3"].tags["message"].startswith("no access with ")
    assert TOKEN not in repr((tracker.study, tracker.runs))


def test_damaged_record_is_named(sent_study: SentStudy) -> None:
    sent_study.sync(Kept())
    file = sent_study.folder.path / "trackers" / "sent.json"
    file.write_text('{"study": "../x", "sent": {}}')
    with pytest.raises(DamagedFileError, match=r"sent.json: is damaged .*; move it away"):
        sent_study.sync(Kept())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--to", "tensorboard"], "tensorboard is not installed; pip install 'hpotune[tensorboard]'"),
        (["--to", "mlflow"], "mlflow is not installed; pip install 'hpotune[mlflow]'"),
        (["--to", "wandb"], "wandb is not installed; pip install 'hpotune[wandb]'"),
        (["--to", "wandbb"], "is no tracker; did you mean 'wandb'? valid: mlflow, tensorboard, wandb"),
        (["--to", "mlflow", "--offline"], "--offline: is for wandb; mlflow needs no such option"),
        (["--to", "tensorboard", "--uri", "http://x:1"], "TensorBoard reads event files from a folder"),
        (["--to", "mlflow", "--uri", "sqlite:////proc/x.db"], "give a file in a folder that exists"),
    ],
    ids=["tensorboard", "mlflow", "wandb", "unknown", "offline", "address", "database"],
)
def test_missing_library_is_one_line(trained_study: Path, words: list[str], line: str) -> None:
    command = [sys.executable, "-c", HIDE + MAIN, "sync", str(trained_study), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"{line}\n")
    assert len(done.stderr.splitlines()) == 1
