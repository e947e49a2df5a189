"""What a warm process keeps: no trial gets what one that trains all weights changed, nor rows of an older file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.records.trial import TrialSpec
from hpotune.workspace.origin.trial_provenance import read_trial_provenance
from tests.finetune.warm.conftest import measured, worker
from tests.fixtures.tiny_trials import home as home
from tests.fixtures.tiny_trials import model_distance, run_here

EXACT = 1e-9  # float64, but the model's norms compute in float32
METHODS = ["lora", "full", "full", "lora"]


def trials(make: Callable[..., TrialSpec], parent: str) -> list[TrialSpec]:
    """A baseline at the end too: its loss is that of the base model."""
    made = [
        make(number, parent=parent, train={"method": method})
        for number, method in enumerate(METHODS, start=1)
    ]
    return [*made, make(len(made) + 1, parent=parent, spec={"kind": "baseline"})]


def test_full_trials_leave_base_alone(trial: Callable[..., TrialSpec]) -> None:
    warm, cold = trials(trial, "warm"), trials(trial, "cold")
    with worker() as run:
        found = [measured(run(spec)) for spec in warm]
    assert found == [measured(run_here(spec)) for spec in cold]
    assert model_distance(warm[1], cold[1]) == model_distance(warm[2], cold[2]) == 0
    assert found[0]["values"] == found[3]["values"] != found[1]["values"] == found[2]["values"]
    recorded = [read_trial_provenance(Path(spec.folder)) for spec in warm]
    assert [one.earlier_trials for one in recorded if one is not None] == [0, 1, 2, 3, 4]


def test_full_trials_leave_shards_alone(trial: Callable[..., TrialSpec]) -> None:
    warm, cold = trials(trial, "warm"), trials(trial, "cold")
    with worker(processes=2) as run:
        found = [run(spec) for spec in warm]
    for two, one in zip(found, map(run_here, cold), strict=True):
        assert two.values == pytest.approx(one.values, abs=EXACT)


def test_streamed_rows_are_kept(trial: Callable[..., TrialSpec], tmp_path: Path, home: Path) -> None:
    """They are read from one file; rows that change between two trials give another one."""
    rows, prepared = tmp_path / "rows.jsonl", tmp_path / "prepared"
    lines = (home / "rows.jsonl").read_bytes().splitlines(keepends=True)
    rows.write_bytes(b"".join(lines))
    data = {"path": str(rows), "validation": 8}

    def warm(number: int) -> TrialSpec:
        return trial(
            number, parent="warm", data={**data, "streaming": True}, spec={"prepared": str(prepared)}
        )

    def cold(number: int) -> TrialSpec:
        return trial(number, parent="cold", data=data)

    with worker() as run:
        found = [measured(run(warm(number))) for number in (1, 2)]
        wanted = [measured(run_here(cold(number))) for number in (1, 2)]
        rows.write_bytes(b"".join(lines[:40]))
        found.append(measured(run(warm(3))))
        wanted.append(measured(run_here(cold(3))))
    assert found == wanted
    assert (found[0]["train_rows"], found[2]["train_rows"]) == (40, 32)
    recorded = read_trial_provenance(tmp_path / "warm/3")
    assert recorded is not None
    assert recorded.earlier_trials == 2
    assert len(list(prepared.glob("*.tokens"))) == 2
