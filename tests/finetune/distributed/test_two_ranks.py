"""Two processes with a sharded base model train the same adapter as one process, and write the same files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from hpotune.records.trial import TrialResult, TrialSpec
from tests.fixtures.tiny_model import topic_task
from tests.fixtures.tiny_trials import (
    adapter_distance,
    curve_lines,
    result_of,
    run_here,
    spec_in,
    start_trial,
    wait_for_step,
)

EXACT = 1e-9  # float64, but the model's norms compute in float32
# 40 rows in batches of 7: ranks with unequal shares, micro-batches without rows, a smaller last batch of an epoch.
TRAIN = {"global_batch_size": 7, "per_device_train_batch_size": 3, "gradient_checkpointing": True}
FILES = {"result.json", "curve.jsonl", "spans.jsonl", "adapter", "spec.json", "log.txt", "items.npz"}
FILES |= {
    "provenance.json",
    "environments",
    "hashes",
}  # the last two of the study, whose folder is the trial's here


@pytest.fixture(scope="module")
def pair(home, tmp_path_factory) -> tuple[TrialSpec, TrialSpec]:
    """The same trial, run by one process and by two."""
    parent = tmp_path_factory.mktemp("pair")
    tasks = topic_task(parent / "tasks", test=10)
    objective = [{"task": "toy_topics", "metric": "acc", "limit": 4}, {"metric": "eval_loss"}]
    score = {"objective": objective, "include_path": str(tasks)}
    one, two = (spec_in(parent, home, name, train=TRAIN, score=score) for name in ("one", "two"))
    process = start_trial(two, processes=2)
    (Path(one.folder) / "result.json").write_text(run_here(one).model_dump_json())
    assert process.wait(timeout=300) == 0, (Path(two.folder) / "log.txt").read_text()
    return one, two


@pytest.fixture(scope="module")
def results(pair) -> tuple[TrialResult, TrialResult]:
    return result_of(pair[0]), result_of(pair[1])


def test_each_rank_holds_half_of_base(results):
    shares = [result.metrics["base_share_per_rank"] for result in results]
    assert shares == [1.0, pytest.approx(0.5, abs=0.01)]


def test_two_ranks_train_same_adapter(pair):
    assert adapter_distance(*pair) < EXACT


def test_two_ranks_measure_same_values(results):
    one, two = results
    assert two.metrics["world_size"] == 2
    assert two.values == pytest.approx(one.values, abs=EXACT)
    assert two.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], abs=EXACT)


def test_sanity_checks_pass_on_both_ranks(results):
    assert {name: check["ok"] for name, check in results[1].checks.items()} == {
        "identity": True,
        "moved": True,
        "reload": True,
    }


def test_values_have_standard_errors(results):
    metrics = results[1].metrics
    assert results[1].values == [metrics["toy_topics/acc"], metrics["eval_loss"]]
    assert results[1].stderrs == [metrics["toy_topics/acc_stderr"], None]


def test_trial_files_without_checkpoint(pair):
    folder = Path(pair[1].folder)
    assert {file.name for file in folder.iterdir()} == FILES
    assert (folder / "result.json").stat().st_mode & 0o777 == 0o644


def test_spans_never_overlap(pair):
    spans = [json.loads(line) for line in (Path(pair[1].folder) / "spans.jsonl").read_text().splitlines()]
    assert {span["phase"] for span in spans} == {
        "load",
        "data",
        "check",
        "train",
        "checkpoint",
        "save",
        "score",
    }
    times = [time for span in spans for time in (span["start"], span["end"])]
    assert times == sorted(times)
    assert {span["trial"] for span in spans} == {1}


def test_signal_to_one_rank_pauses_both(make_spec):
    settings = {"train": {"max_steps": 80}}
    unbroken, spec = make_spec("unbroken", **settings), make_spec(**settings)
    process = start_trial(spec, processes=2)
    wait_for_step(spec, process, 3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGUSR2)
    assert process.wait(timeout=300) == 0
    assert result_of(spec).state == "paused"
    assert len(curve_lines(spec)) < 80
    run_here(spec), run_here(unbroken)
    assert adapter_distance(unbroken, spec) < EXACT
