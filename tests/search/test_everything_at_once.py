"""Conditions, categories, constraints known before and after, two objectives, and pruning, in one study."""

from __future__ import annotations

from typing import Any

import pytest

from hpotune.config.schema.rungs import ALGORITHMS, LINEAGES
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialResult, Worker
from hpotune.schedule.best_trials import best_trials
from hpotune.search.algorithms.registry import MODULES, algorithm, check_algorithm
from hpotune.search.sampler_setup import sampler_setup
from hpotune.storage import Claim, TrialQueue

TRIALS, WORKERS = 24, 3
MEMORY = 60.0
"""Largest memory of a trial; known only after it."""
SECTIONS: dict[str, Any] = {
    "params": {
        "lr": {"float": [1e-5, 1e-1], "log": True, "prior": 1e-3},
        "rank": {"int": [2, 64], "log": True},
        "batch": {"int": [1, 32]},
        "modules": {"choice": [["q", "v"], "all"]},
        "optimizer": {"choice": ["sgd", "adam"]},
        "momentum": {"float": [0.5, 0.99], "when": {"params.optimizer": "sgd"}},
        "alpha": {"expr": "2 * params.rank"},
    },
    "constraints": ["params.rank * params.batch <= 512"],
    "score": {
        "objective": [
            {"metric": "loss", "direction": "minimize"},
            {"metric": "speed", "direction": "maximize"},
        ],
        "constraints": [{"metric": "memory", "max": MEMORY}],
    },
    "budget": {"trials": TRIALS, "parallel": WORKERS},
}
WANTS = ("conditions", "categories", "objectives", "constraints")
REASON = {
    "conditions": "conditions (params.momentum has `when`)",
    "categories": "categories (params.modules)",
    "objectives": "several objectives (2)",
    "constraints": "constraints known only after a trial (score.constraints)",
}
NAMES = [name for name in MODULES if name not in LINEAGES]
ABLE = [name for name in NAMES if all(getattr(algorithm(name), want) for want in WANTS)]


def sections(name: str) -> dict[str, Any]:
    own = {} if name in ALGORITHMS else {"pruner": "asha"}
    return {**SECTIONS, "search": {"algorithm": name, **own}}


def memory(point: dict[str, Any]) -> float:
    return float(point["params.batch"] * (3 if point["params.modules"] == "all" else 2))


def result(claim: Claim) -> TrialResult:
    """The result of a trial at its rung: better at each further one."""
    point = claim.row.params
    loss = (
        abs(point["params.lr"] - 1e-3) + point.get("params.momentum", 0.0) + 1 / (1 + (claim.row.rung or 0))
    )
    values = [loss, float(point["params.rank"] * point["params.batch"])]
    metrics = {"memory": memory(dict(point))}
    return TrialResult(number=0, state="finished", values=values, metrics=metrics, rung=claim.row.rung)


def played(store: TrialQueue) -> None:
    """Three workers; trials finish in the order of their starts."""
    busy: list[Claim] = []
    while True:
        claim = store.claim(Worker(job="local", host="h", pid=1)) if len(busy) < WORKERS else None
        if isinstance(claim, Claim):
            busy.append(claim)
        elif busy:
            done = busy.pop(0)
            store.record_rung(done.trial_id, result(done))
        else:
            return


def test_some_algorithms_support_everything():
    assert {"auto", "tpe", "random", "nsga2", "asha", "bohb"} <= set(ABLE) < set(NAMES)


@pytest.mark.parametrize("name", ABLE)
def test_supporting_algorithm_finishes_study(make_study, tmp_path, name):
    study = make_study(**sections(name))
    check_algorithm(study, sampler_setup(study, study.config))
    store = TrialQueue.create(f"sqlite:///{tmp_path}/store", study, folder="/s")
    played(store)
    rows = store.rows()
    assert sum(row.decided for row in rows) == len(rows) == TRIALS
    assert {row.state for row in rows} == {"finished", "stopped"}
    for row in rows:
        point = dict(row.params)
        assert point["params.rank"] * point["params.batch"] <= 512
        assert ("params.momentum" in point) == (point["params.optimizer"] == "sgd")
        assert bool(row.breaks) == (memory(point) > MEMORY)
    assert len({str(sorted(row.params.items())) for row in rows}) == TRIALS
    front = best_trials(study.config.score.objective, rows, None)
    assert front
    assert not any(row.breaks for row in front)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ABLE])
def test_others_refuse_with_every_reason(make_study, name):
    study = make_study(**sections(name))
    with pytest.raises(StudyFileError) as refused:
        check_algorithm(study, sampler_setup(study, study.config))
    line = refused.value.mistakes[0]
    named = [want for want in WANTS if REASON[want] in line]
    assert named == [want for want in WANTS if not getattr(algorithm(name), want)]
    assert (
        f"needs one of {', '.join(n for n in MODULES if n in ABLE and n != 'qmc')}" in line or len(named) < 2
    )
