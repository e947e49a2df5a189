"""`hpotune logs`: of a trial, of a job, and of what has written nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpotune.cli import app
from hpotune.errors import StudyFileError


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with the logs of two trials and of a job."""
    for number, text in ((0, "one\ntwo\nthree\n"), (1, "")):
        (tmp_path / "trials" / str(number)).mkdir(parents=True)
        (tmp_path / "trials" / str(number) / "log.txt").write_text(text)
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    (tmp_path / "jobs" / "7" / "7_0_0_log.out").write_bytes(b"caf\xe9\nno python\n")
    (tmp_path / "jobs" / "7" / "7_1_0_log.out").write_text("")
    return tmp_path


def run(*words: object) -> tuple[str, str]:
    """stdout and stderr of `hpotune logs`."""
    done = CliRunner().invoke(app, ["logs", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout, done.stderr


def test_last_lines_of_a_trial(study: Path) -> None:
    assert run(study, 0, "-n", 2) == ("two\nthree\n", "")
    assert run(study, 0, "-n", 0) == ("one\ntwo\nthree\n", "")


def test_silent_trial_is_said(study: Path) -> None:
    out, err = run(study, 1)
    assert out == ""
    assert "trial 1 has written nothing so far" in err


def test_log_of_a_job(study: Path, no_slurm: None) -> None:
    out, _ = run(study, "--job", "7_0")
    assert out == f"==> {study}/jobs/7/7_0_0_log.out <==\ncaf\ufffd\nno python\n"
    out, _ = run(study, "--job", 7, "-n", 1)
    assert out.splitlines()[1:] == ["no python", f"==> {study}/jobs/7/7_1_0_log.out <==", "(empty)"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "needs a trial's number, or --job ID"),
        ([0, "--job", 7], "needs a trial's number, or --job ID"),
        (["--job", 8], "--job 8: has no log .* the study's jobs: 7"),
        (["--job", "../7"], "--job '../7': is no job id"),
        ([9], "trial 9 has no log"),
    ],
)
def test_missing_log_is_an_error(study: Path, no_slurm: None, words: list[object], error: str) -> None:
    with pytest.raises(StudyFileError, match=error):
        run(study, *words)
