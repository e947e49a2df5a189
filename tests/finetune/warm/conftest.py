"""Trials of the tiny model, evaluated by the objective, warm or cold.

Warm ones run in forks of the tests' process, cold ones in the tests' process itself. HPOTUNE_WARM_FULL=1: both in the
processes that a worker starts (three minutes of CPU).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.finetune.model import hub
from hpotune.finetune.training import sanity_checks
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective import open_objective, warm_process
from hpotune.worker.objective.interface import TrialContext
from hpotune.worker.objective.process import StopRequest
from tests.fixtures.forked_rank import ForkedRank
from tests.fixtures.tiny_model import topic_task
from tests.fixtures.tiny_trials import ENV, ROOT, curve_lines, run_here, spec_in
from tests.fixtures.tiny_trials import home as home

FULL = os.environ.get("HPOTUNE_WARM_FULL") == "1"
PLANTED = ROOT / "tests/fixtures/planted"
Run = Callable[[TrialSpec], TrialResult]
DIFFERENT = {"train_seconds", "samples_per_second", "tokens_per_second", "peak_memory_gb", "process_hours"}
"""Metrics that differ from run to run."""


@contextmanager
def worker(
    *,
    warm: bool = True,
    processes: int = 1,
    planted: Mapping[int, str] | None = None,
    stop: StopRequest | None = None,
) -> Iterator[Run]:
    """Evaluates trials as a worker does. `planted`: the defects of trials, by their number."""
    if not warm and processes == 1 and not FULL:
        yield run_here
        return
    defects = ",".join(f"{number}:{defect}" for number, defect in (planted or {}).items())
    env = {**os.environ, **ENV, "PYTHONPATH": f"{PLANTED}:{ENV['PYTHONPATH']}", "PLANTED": defects}
    config = StudyConfig.model_validate(
        {
            "name": "s", "model": {"path": "m"}, "data": {"path": "d"}, "budget": {"trials": 1},
            "score": {"objective": [{"metric": "eval_loss"}]}, "execution": {"warm": warm},
            "resources": {"processes": processes},
        }
    )  # fmt: skip
    context = TrialContext(config=config, env=env, stop=stop or StopRequest())
    with open_objective(context) as evaluate:
        yield lambda spec: evaluate([spec])[0]


@pytest.fixture(scope="session", autouse=True)
def _forked_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ranks are forks of this process, unless HPOTUNE_WARM_FULL is set."""
    if FULL:
        yield
        return
    cache = str(tmp_path_factory.mktemp("cache"))
    spec = importlib.util.spec_from_file_location("planted_defects", PLANTED / "sitecustomize.py")
    defects = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(defects)

    def prepare() -> None:
        os.environ |= {hub.PRIVATE: cache, "HF_DATASETS_CACHE": cache}
        sanity_checks.check_moved = defects.planted(sanity_checks.check_moved)

    forked = SimpleNamespace(
        Popen=partial(ForkedRank, prepare=prepare),
        STDOUT=subprocess.STDOUT,
        DEVNULL=subprocess.DEVNULL,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm_process, "subprocess", forked)
        yield


def measured(result: TrialResult) -> dict:
    """What equal trials have in common."""
    metrics = {name: value for name, value in result.metrics.items() if name not in DIFFERENT}
    return {"state": result.state, "values": result.values, "checks": dict(result.checks)} | metrics


def process_of(spec: TrialSpec) -> str:
    """The process that ran the trial, as it says in its log."""
    lines = (Path(spec.folder) / "log.txt").read_text().splitlines()
    return next(line for line in reversed(lines) if line.startswith("process "))


def at_step(spec: TrialSpec, step: int, act: Callable[[], object]) -> threading.Thread:
    """Acts once the trial has logged the step."""

    def watch() -> None:
        while len(curve_lines(spec)) < step:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="session")
def task_home(home: Path) -> Path:
    """The folder with model, rows, and a task without code of its own."""
    topic_task(home / "task")
    return home


def make_trial(
    folder: Path, home: Path, number: int, *, parent: str = "", spec: dict | None = None, **sections: dict
) -> TrialSpec:
    """A trial of two steps that is scored by loss and by a task."""
    inner = folder / (parent or "trials")
    inner.mkdir(exist_ok=True)
    objective = [{"metric": "eval_loss"}, {"task": "toy_topics", "metric": "acc", "limit": 6}]
    score = {"objective": objective, "include_path": str(home / "task")}
    sections["score"] = score | sections.get("score", {})
    sections["train"] = {"max_steps": 2} | sections.get("train", {})
    return spec_in(inner, home, str(number), spec={"number": number} | (spec or {}), **sections)


@pytest.fixture
def trial(task_home: Path, tmp_path: Path) -> Callable[..., TrialSpec]:
    """`make_trial` in this test's folder."""
    return partial(make_trial, tmp_path, task_home)


@pytest.fixture(scope="module")
def trial_in(task_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrialSpec]:
    """`make_trial` in a folder of this module."""
    return partial(make_trial, tmp_path_factory.mktemp("planted"), task_home)
