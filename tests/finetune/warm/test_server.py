"""Trials in a warm process: the values of cold ones, and a new process after everything unusual."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective.process import PAUSE_SIGNAL, StopRequest
from hpotune.workspace.origin.trial_provenance import read_trial_provenance
from tests.finetune.warm.conftest import at_step, measured, process_of, worker
from tests.fixtures.tiny_trials import curve_lines, run_here

TRIALS = 12
PLANTED = {2: "hook", 4: "weight", 6: "class", 8: "memory", 10: "kill"}
LONG = {"max_steps": 30, "logging_steps": 1}
NO_RELOAD = {"checks": {"reload": False}}


def requests_of(spec: TrialSpec) -> str:
    """The hash of the requests that the trial scored."""
    return json.loads((Path(spec.folder) / "provenance.json").read_text())["inputs"]["toy_topics"]


def sections(number: int) -> dict:
    """Trials that differ in rank, dropout, biases, noise, kind of adapter, trained head; the first is the baseline."""
    lora = [
        {},
        {"lora_dropout": 0.3, "r": 8},
        {"bias": "all"},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
    ][number % 5]
    train = {"learning_rate": 1e-3 * (number + 1), **({"neftune_noise_alpha": 5} if number % 3 == 1 else {})}
    spec = {"kind": "baseline"} if number == 0 else {}
    return {"lora": lora, "train": train, "spec": spec}


def test_values_equal_those_of_cold_trials(trial: Callable[..., TrialSpec]) -> None:
    found = {}
    for warm in (True, False):
        specs = [trial(number, parent=f"warm-{warm}", **sections(number)) for number in range(TRIALS)]
        with worker(warm=warm) as run:
            found[warm] = [measured(run(spec)) for spec in specs]
        if warm:
            assert len({process_of(spec) for spec in specs[1:]}) == 1
            recorded = [read_trial_provenance(Path(spec.folder)) for spec in specs]
            assert [one.earlier_trials for one in recorded if one is not None] == [*range(TRIALS)]
    assert all(one["state"] == "finished" for one in found[True])
    assert found[True] == found[False]
    assert len({str(one["values"]) for one in found[True]}) == TRIALS


@pytest.fixture(scope="module")
def after_defects(trial_in: Callable[..., TrialSpec]) -> dict[int, tuple[TrialResult, str]]:
    """The trials 1 to 11 of one worker, of which every second has a defect: results and processes."""
    found = {}
    with worker(planted=PLANTED) as run:
        for number in range(1, 12):
            spec = trial_in(number, spec=NO_RELOAD)
            found[number] = run(spec), process_of(spec)
    return found


def test_hook_ends_with_its_trial(after_defects: dict) -> None:
    assert after_defects[2][0].values != after_defects[1][0].values
    assert after_defects[3][1] == after_defects[2][1]
    assert measured(after_defects[3][0]) == measured(after_defects[1][0])


@pytest.mark.parametrize("number", [4, 6, 8, 10])
def test_defect_gives_next_trial_new_process(after_defects: dict, number: int) -> None:
    assert after_defects[number + 1][1] != after_defects[number][1]
    assert measured(after_defects[number + 1][0]) == measured(after_defects[1][0])


def test_failures_keep_their_causes(after_defects: dict) -> None:
    assert after_defects[8][0].failure.cause == "oom"
    assert after_defects[10][0].failure.cause == "killed"


def test_changed_task_gives_new_process(trial: Callable[..., TrialSpec], task_home: Path) -> None:
    file = task_home / "task/test.jsonl"
    before = file.read_text()
    lines = before.splitlines(keepends=True)
    try:
        with worker() as run:
            first, same, changed = (trial(number, spec=NO_RELOAD) for number in (1, 2, 3))
            run(first)
            run(same)
            file.write_text("".join([*lines[6:], *lines[:6]]))
            run(changed)
        assert process_of(first) == process_of(same) != process_of(changed)
        asked = [requests_of(spec) for spec in (first, same, changed)]
        assert asked[0] == asked[1] != asked[2]
    finally:
        file.write_text(before)


def test_paused_later_trial_is_continued(trial: Callable[..., TrialSpec]) -> None:
    stop = StopRequest()
    first, paused, unbroken = trial(1), trial(2, train=LONG), trial(2, parent="unbroken", train=LONG)
    with worker(stop=stop) as run:
        assert run(first).state == "finished"
        at_step(paused, 5, lambda: stop.request(PAUSE_SIGNAL))
        assert run(paused).state == "paused"
    assert 5 <= len(curve_lines(paused)) < 30
    with worker() as run:
        continued = run(paused)
    assert process_of(paused) != process_of(first)
    assert continued.values == run_here(unbroken).values


def test_kill_between_trials_costs_nothing(trial: Callable[..., TrialSpec]) -> None:
    specs = [trial(number) for number in (1, 2, 3)]
    with worker() as run:
        run(specs[0])
        for number, spec in zip((signal.SIGKILL, signal.SIGTERM), specs[1:], strict=True):
            os.kill(int(process_of(specs[0]).split()[1]), number)
            assert run(spec).state == "finished"
            specs[0] = spec
