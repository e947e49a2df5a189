"""Two warm ranks with a sharded base model: the values of one cold rank, and new ranks after everything unusual."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective.process import PAUSE_SIGNAL, StopRequest
from hpotune.workspace.origin.trial_provenance import read_trial_provenance
from tests.finetune.warm.conftest import at_step, worker
from tests.fixtures.tiny_trials import adapter_distance, curve_lines, run_here

EXACT = 1e-9  # float64, but the model's norms compute in float32
LONG = {"max_steps": 30, "logging_steps": 1}
LORA = [{}, {"r": 8}, {"use_dora": True}, {"bias": "all"}, {"lora_alpha": 32}, {}, {"r": 2}]
"""By number; the trials 2 and 3 load a base model of their own."""
PLANTED = {4: "shard", 5: "kill"}


def processes_of(spec: TrialSpec) -> set[str]:
    """The two processes that ran the trial last, as they say in its log."""
    lines = (Path(spec.folder) / "log.txt").read_text().splitlines()
    return set([line for line in lines if line.startswith("process ")][-2:])


@pytest.fixture(scope="module")
def trials(trial_in: Callable[..., TrialSpec]) -> list[tuple[TrialSpec, TrialResult, TrialResult]]:
    """Seven trials of one worker, of which two have a defect: specs, results, and those of one cold rank."""
    found = []
    with worker(processes=2, planted=PLANTED) as run:
        for number, lora in enumerate(LORA):
            kind = {"spec": {"kind": "baseline"}} if number == 0 else {}
            spec, alone = (trial_in(number, parent=one, lora=lora, **kind) for one in ("two", "one"))
            found.append((spec, run(spec), run_here(alone)))
    return found


def test_warm_ranks_measure_cold_values(trials: list) -> None:
    for number, (_, two, one) in enumerate(trials):
        if number != 5:
            assert two.values == pytest.approx(one.values, abs=EXACT), number
            assert two.metrics["world_size"] == 2
            assert two.metrics["base_share_per_rank"] == pytest.approx(0.5, abs=0.01)


def test_ranks_train_same_adapter(trials: list) -> None:
    spec = trials[4][0]
    alone = spec.model_copy(update={"folder": spec.folder.replace("/two/", "/one/")})
    assert adapter_distance(spec, alone) < EXACT


def test_ranks_stay_for_next_trials(trials: list) -> None:
    recorded = [read_trial_provenance(Path(spec.folder)) for spec, _, _ in trials]
    assert [one.earlier_trials for one in recorded if one is not None] == [0, 1, 2, 3, 4, 5, 0]
    assert processes_of(trials[1][0]) == processes_of(trials[4][0]) != processes_of(trials[6][0])


def test_killed_rank_fails_its_trial(trials: list) -> None:
    assert trials[5][1].state == "failed"
    assert trials[5][1].failure.cause == "killed"


def test_idle_rank_is_replaced(trial: Callable[..., TrialSpec]) -> None:
    first, second = trial(1), trial(2)
    with worker(processes=2) as run:
        run(first)
        os.kill(int(sorted(processes_of(first))[-1].split()[1]), signal.SIGKILL)
        assert run(second).state == "finished"
    assert not processes_of(first) & processes_of(second)


def test_paused_ranks_write_checkpoint(trial: Callable[..., TrialSpec]) -> None:
    stop = StopRequest()
    first, paused, unbroken = trial(1), trial(2, train=LONG), trial(2, parent="unbroken", train=LONG)
    with worker(processes=2, stop=stop) as run:
        assert run(first).state == "finished"
        at_step(paused, 5, lambda: stop.request(PAUSE_SIGNAL))
        assert run(paused).state == "paused"
    assert 5 <= len(curve_lines(paused)) < 30
    with worker(processes=2) as run:
        assert run(paused).values == pytest.approx(run_here(unbroken).values, abs=EXACT)
