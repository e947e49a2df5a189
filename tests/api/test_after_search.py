"""Repeats by the command line, of a function whose value depends on its seed: run, kill, cancel, resume, best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpotune.records.trial import TrialRow
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder

FUNCTION = """\
import os
import random
import time
from pathlib import Path


def f(x):
    while "/repeats/trials/" in os.environ["HPOTUNE_TRIAL_DIR"] and Path(__file__).with_name("hold").exists():
        time.sleep(0.1)
    seed = int(os.environ["HPOTUNE_SEED"])
    return {"acc": round(0.5 - (x - 0.4) ** 2 + random.Random(seed).gauss(0, 0.001), 6), "seed": seed}
"""
STUDY = """\
name: s
python: f.py:f
params: {x: {float: [0, 1]}}
score: {objective: {metric: acc}}
search: {algorithm: sobol, finalists: 2, repeats: 2}
budget: {trials: 3, parallel: 2}
"""


def hpotune(verb: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpotune", verb, *map(str, words)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def json_of(verb: str, *words: object) -> Any:
    done = hpotune(verb, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    program = FUNCTION.replace('Path(__file__).with_name("hold")', f'Path("{tmp_path}/hold")')
    (tmp_path / "f.py").write_text(program)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path / "study.yaml"


def repeats(file: Path) -> list[TrialRow]:
    folder = StudyFolder(path=file.parent / "s" / "repeats")
    if not folder.resolved_file.is_file():
        return []
    return rows_of(folder.provenance().store, folder.load())


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.2)


@contextmanager
def holding_run(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`hpotune run` in the background, up to two running repeats, which end once the file `hold` is gone."""
    (file.parent / "hold").touch()
    run = subprocess.Popen(
        [sys.executable, "-m", "hpotune", "run", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: sum(row.state == "running" for row in repeats(file)) == 2)
        yield run
    finally:
        run.kill()
        run.wait()


def test_killed_repeat_is_repeated(file: Path) -> None:
    """A worker and then the whole run are killed while repeats run: each point is trained once, with its own seed."""
    with holding_run(file):
        worker = next(row.worker for row in repeats(file) if row.state == "running" and row.worker)
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: any(row.attempts for row in repeats(file)))
        status = json_of("status", file)
        assert (status["state"], status["repeats"]["state"]) == ("done", "running")
        assert "until they have ended the answer is that of the search alone" in hpotune("best", file).stdout
    (file.parent / "hold").unlink()
    again = hpotune("resume", file)
    assert again.returncode == 0, again.stderr
    rows = repeats(file)
    assert f"again, seed {rows[-1].metrics['seed']}]" in again.stderr
    assert [row.state for row in rows] == ["finished"] * 4
    assert len({row.metrics["seed"] for row in rows} | {0}) == 5
    assert "killed" in [one.cause for row in rows for one in row.attempts]
    best = json_of("best", file)
    assert best["best"]["number"] == best["repeats"]["winner"]
    assert best["repeats"]["state"] == "done"
    values = [one["value"] for trial in best["repeats"]["trials"] for one in trial["repeats"]]
    assert sorted(values) == sorted(row.values[0] for row in rows)
    before = (file.parent / "s" / "repeats" / "store.db").read_bytes()
    assert "the study is over" in hpotune("resume", file).stdout
    assert hpotune("run", file).returncode == 0
    assert len(repeats(file)) == 4
    assert len((file.parent / "s" / "repeats" / "store.db").read_bytes()) == len(before)


def test_cancel_ends_repeats_too(file: Path) -> None:
    with holding_run(file) as run:
        assert "local worker" in hpotune("cancel", file).stdout
        assert run.wait(timeout=120) == 130
    assert json_of("status", file)["repeats"]["state"] == "cancelled"
    (file.parent / "hold").unlink()
    assert hpotune("resume", file).returncode == 0
    assert [row.state for row in repeats(file)] == ["finished"] * 4
    again = file.parent / "s" / "repeats"
    for words in (["extend", again, "--trials", "+3"], ["export", again, file.parent / "x", "--as", "study"]):
        refused = hpotune(*words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "repeats is a part of another study" in refused.stderr
