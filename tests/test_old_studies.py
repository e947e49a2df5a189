"""Studies made by an earlier version (tests/data/old_studies/README.md) are read, continued and finished by this one.

By the command line, its JSON, and Optuna; nothing of hpotune is imported, for what lies inside may have moved since.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.fixtures.old_studies import OldStudy, hpotune, loss, put_back, result

INTERRUPTED = ["sqlite", "journal", pytest.param("postgresql", marks=pytest.mark.postgres)]
ALL = [*INTERRUPTED, "extended", "slurm"]
WORDS = ("reason", "policy", "advice", "lines", "log")
"""Sentences, which a later version may put in other words, and which log tells most."""
STATES = {
    "finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL", "paused": "WAITING", "resting": "WAITING",
}  # fmt: skip
TOOLS = ("bash", "sh", "cut", "env", "git", "grep", "python3", "sleep")


@pytest.fixture
def old(request: pytest.FixtureRequest, tmp_path: Path) -> OldStudy:
    """The study that the test is called with."""
    name = request.param
    return put_back(
        name, tmp_path, postgres=request.getfixturevalue("postgres") if name == "postgresql" else ""
    )


@pytest.fixture
def no_slurm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which no command of Slurm is found, as on a machine without it."""
    folder = tmp_path_factory.mktemp("bin")
    for tool in TOOLS:
        if path := shutil.which(tool):
            (folder / tool).symlink_to(path)
    return {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")} | {
        "PATH": str(folder)
    }


def plain(value: Any, then: Any) -> Any:
    """What of a verb's answer an old one held too: keys may come in addition, sentences may change."""
    if isinstance(then, dict) and isinstance(value, dict):
        return {key: plain(value.get(key), old) for key, old in then.items() if key not in WORDS}
    if isinstance(then, list) and isinstance(value, list) and len(then) == len(value):
        return [plain(one, old) for one, old in zip(value, then, strict=True)]
    return value


def same(value: Any, then: Any) -> None:
    assert plain(value, then) == plain(then, then)


def rows(study: OldStudy) -> dict[int, dict[str, Any]]:
    return {row["number"]: row for row in result("trials", study.folder)}


def decided(found: dict[int, dict[str, Any]]) -> list[int]:
    return [number for number, row in found.items() if row["state"] in ("finished", "stopped")]


@pytest.mark.parametrize("old", ALL, indirect=True)
def test_old_study_reads_as_before(old: OldStudy, no_slurm: dict[str, str]) -> None:
    then = old.expected
    status = dict(then["status"])
    if (old.folder / "jobs" / "cancelled").exists():
        status["state"] = "cancelled"  # was idle in 0.1.0
    same(result("status", old.folder, env=no_slurm), status)
    same(result("trials", old.file), then["trials"])
    same(result("best", old.folder), then["best"])
    for number, why in then["why"].items():
        same(result("why", old.folder, number), why)


@pytest.mark.parametrize("old", ALL, indirect=True)
def test_other_reading_verbs_accept_it(old: OldStudy, no_slurm: dict[str, str]) -> None:
    for words in (["check", old.file], ["logs", old.folder, 1], ["plan", old.folder], ["status", old.folder]):
        done = hpotune(*words, env=no_slurm)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("old", ALL, indirect=True)
def test_optuna_reads_its_store(old: OldStudy) -> None:
    storage: Any = old.store
    if old.name == "journal":
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(old.store))
    found = optuna.load_study(study_name="descent", storage=storage).trials
    assert [found[row["number"]].state.name for row in old.expected["trials"]] == [
        STATES[row["state"]] for row in old.expected["trials"]
    ]
    values = {row["number"]: list(row["values"].values()) for row in old.expected["trials"]}
    assert all(found[n].values == values[n] for n in values if found[n].state.name == "COMPLETE")


@pytest.mark.parametrize("old", INTERRUPTED, indirect=True)
def test_old_study_continues_and_ends(
    old: OldStudy, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, budget = rows(old), old.expected["status"]["trials"]["budget"]
    ended = {
        number: row for number, row in before.items() if row["state"] in ("finished", "stopped", "failed")
    }
    paused = {number: old.checkpoint(number) for number, row in before.items() if row["state"] == "paused"}
    assert {row["state"] for row in before.values()} >= {"finished", "stopped", "failed", "paused"}
    assert any(paused.values()), "was interrupted before its first step"

    verb = (
        ["resume", old.folder] if old.name == "sqlite" else ["run", old.file]
    )  # a file: it must be the same study
    done = hpotune(*verb)
    assert done.returncode == 0, done.stderr
    after = rows(old)
    assert len(decided(after)) == budget
    assert result("status", old.folder)["state"] == "done"
    assert {number: after[number] for number in ended} == ended
    for number, step in paused.items():
        row = after[number]
        assert row["state"] in ("finished", "stopped"), row
        assert row["params"] == before[number]["params"]
        assert step in old.begins(number), f"trial {number} did not go on at step {step}"
        last = row["rungs"][-1]
        scratch = tmp_path_factory.mktemp("whole") / str(number)
        assert last["values"] == [loss(scratch, monkeypatch, budget=last["budget"], params=row["params"])]

    more = result("extend", old.folder, "--trials", "+1")
    assert more["changed"]["trials"] == [budget, budget + 1]
    assert hpotune("run", old.folder).returncode == 0
    finally_ = rows(old)
    assert len(decided(finally_)) == budget + 1
    assert {number: finally_[number] for number in after} == after


@pytest.mark.parametrize("old", ["extended"], indirect=True)
def test_extended_study_can_be_extended_again(old: OldStudy) -> None:
    before = rows(old)
    assert hpotune("run", old.folder).returncode == 0
    assert rows(old) == before
    assert result("extend", old.folder, "--trials", "+1")["changed"]["trials"] == [6, 7]
    assert hpotune("resume", old.folder).returncode == 0
    after = rows(old)
    assert len(decided(after)) == 7
    assert {number: after[number] for number in before} == before
    assert result("best", old.folder)["finished"] == 7


def last_line(script: Path) -> list[str]:
    """The arguments of `python -m hpotune` in a job script, with the python that it names."""
    line = shlex.split(script.read_text().splitlines()[-1])
    assert line[0] == "srun"
    return line[line.index("-m") - 1 :]


@pytest.mark.parametrize("old", ["slurm"], indirect=True)
def test_old_job_scripts_still_run(old: OldStudy, no_slurm: dict[str, str]) -> None:
    worker, step = (last_line(old.folder / "jobs" / id_ / f"{id_}_submission.sh") for id_ in ("2", "3"))
    assert worker[1:4] == ["-m", "hpotune", "worker"]
    assert "--code" in worker
    assert step[1:] == ["-m", "hpotune", "step", str(old.folder), "--ended", "2"]
    paused = {n: old.checkpoint(n) for n, row in rows(old).items() if row["state"] == "paused"}
    assert any(paused.values())

    def ran(command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=no_slurm)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(worker[0]).resolve() == Path(sys.executable).resolve()
    ran(worker)
    assert len(decided(rows(old))) == 2  # the study was cancelled: a job that starts even so takes nothing
    (old.folder / "jobs" / "cancelled").unlink()  # as `resume` does
    for count in (3, 4, 5, 6):  # one trial a job
        ran(worker)
        assert len(decided(rows(old))) == count
    assert all(old.begins(number)[-1] == step for number, step in paused.items())
    ran(step)
    assert sorted(path.name for path in old.folder.glob("jobs/[0-9]*")) == ["2", "3"]
    assert result("status", old.folder, env=no_slurm)["state"] == "done"
