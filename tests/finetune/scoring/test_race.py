"""Trials of the tiny model that race: equal numbers for those that are scored to their end, an estimate for others."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpotune.config.schema.rungs import Rung
from hpotune.config.schema.study_config import Objective
from hpotune.finetune.scoring.race import Race, decision, random_order, read_leader
from hpotune.finetune.trial_errors import UserError
from hpotune.records.trial import TrialResult, TrialSpec
from tests.fixtures.tiny_model import topic_task
from tests.fixtures.tiny_trials import run_here

ITEMS, SEED = 80, 3  # of the spec's seed
ACC = Objective(task="toy_topics", metric="acc")
STRANGE = """\
include: toy_topics.yaml
task: strange
metric_list: [{metric: acc, aggregation: !function median.median, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = topic_task(tmp_path_factory.mktemp("tasks"), test=ITEMS)
    (folder / "strange.yaml").write_text(STRANGE)
    (folder / "median.py").write_text("def median(values):\n    return sorted(values)[len(values) // 2]\n")
    return folder


def leader_file(folder: Path, values: np.ndarray, **changed: Any) -> Path:
    """A leader with these items, as a worker names it."""
    arrays = {"leaves": np.array(["toy_topics"]), "doc_id": np.arange(len(values)), "acc": values}
    np.savez(folder / "leader.npz", **{f"toy_topics/{name}": one for name, one in arrays.items()})
    facts = {"trial": 5, "value": float(values.mean()), "stderr": 0.03, "items": str(folder / "leader.npz")}
    (folder / "leader.json").write_text(json.dumps(facts | changed))
    return folder / "leader.json"


def items(spec: TrialSpec) -> dict[str, np.ndarray]:
    with np.load(Path(spec.folder) / "items.npz") as stored:
        return {name.removeprefix("toy_topics/"): stored[name] for name in stored.files}


@pytest.fixture
def run(make_spec: Callable[..., TrialSpec], tasks: Path) -> Callable[..., tuple[TrialSpec, TrialResult]]:
    """A trial of 12 steps that is scored on `toy_topics`, and its result."""

    def done(name: str, *, spec: dict[str, Any] | None = None, **score: Any) -> tuple[TrialSpec, TrialResult]:
        keys = {"objective": [ACC.model_dump()], "include_path": str(tasks), "batch_size": 4, **score}
        made = make_spec(name, spec=spec, score=keys)
        return made, run_here(made)

    return done


def test_whole_race_has_equal_numbers(run: Callable[..., Any], tmp_path: Path) -> None:
    whole, expected = run("whole")
    leader = leader_file(tmp_path, items(whole)["acc"])  # itself: no worse
    raced, found = run("raced", spec={"leader": str(leader)}, race=True)
    assert found.race is None
    assert found.values == pytest.approx(expected.values, rel=1e-12)
    same = {"toy_topics/acc", "toy_topics/acc_norm", "toy_topics/acc_stderr", "eval_loss"}
    assert {k: found.metrics[k] for k in same} == pytest.approx({k: expected.metrics[k] for k in same})
    assert items(raced)["acc"].tolist() == items(whole)["acc"].tolist()


def test_worse_trial_ends_with_estimate(run: Callable[..., Any], tmp_path: Path) -> None:
    leader = leader_file(tmp_path, np.ones(ITEMS))
    spec, result = run("raced", spec={"leader": str(leader)}, race={"error": 0.01}, record=["toy_topics"])
    race = result.race
    assert (race.leader, race.scored_items, race.items, race.error) == (5, 30, ITEMS, 0.01)
    own = items(spec)
    assert own["doc_id"].tolist() == sorted(random_order(range(ITEMS), "toy_topics", SEED)[:30])
    wrong = 1 - own["acc"].mean()
    assert result.values == pytest.approx([1 - wrong])
    assert race.difference_stderr == pytest.approx(math.sqrt(wrong / 30 * (1 - 30 / ITEMS)))
    assert result.stderrs == pytest.approx([math.hypot(0.03, race.difference_stderr)])
    assert "toy_topics/acc" not in result.metrics
    _, found = run("again", spec={"leader": str(leader)}, race={"error": 0.01})
    assert (found.values, found.race) == (result.values, race)


def test_rung_scores_few_items(run: Callable[..., Any]) -> None:
    rung = Rung(index=0, unit="steps", budget=4, last=False)
    spec, result = run("rung", spec={"rung": rung.model_dump()}, rung_items=20, race=True)
    chosen = sorted(random_order(range(ITEMS), "toy_topics", SEED)[:20])
    assert items(spec)["doc_id"].tolist() == chosen
    assert result.values == pytest.approx([items(spec)["acc"].mean()])
    assert (result.race, result.rung) == (None, 0)


def test_metric_without_mean_is_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"score\.race: acc of strange is no mean over items \(median\)"):
        run("strange", objective=[{"task": "strange", "metric": "acc"}], race=True)


def test_order_follows_seed_and_task() -> None:
    ids = range(500)
    assert random_order(ids, "piqa", 1) == random_order(ids, "piqa", 1)
    assert sorted(random_order(ids, "piqa", 1)) == [*ids]
    others = [random_order(ids, "piqa", 2), random_order(ids, "arc_easy", 1)]
    assert random_order(ids, "piqa", 1) not in others


def test_unusable_leaders_are_ignored(tmp_path: Path) -> None:
    values, asked = np.tile([0.0, 1.0], ITEMS // 2), {"toy_topics": "a"}

    def why(**changed: Any) -> str:
        race = Race(objective=ACC, error=0.05, seed=0, requests=asked)
        race.leader_file = leader_file(tmp_path, values, **changed)
        race.read_leader()
        return race.why_alone if race.leader is None else "none"

    assert why() == "none"
    assert "is no mean over its items" in why(value=0.6)
    assert "gone.npz is gone or damaged" in why(items=str(tmp_path / "gone.npz"))
    assert read_leader(tmp_path / "none.json", ACC, requests=asked) is None
    (tmp_path / "provenance.json").write_text(json.dumps({"inputs": {"toy_topics": "b"}}))
    assert "another version of toy_topics" in why()
    (tmp_path / "provenance.json").write_text(json.dumps({"inputs": asked}))
    assert why() == "none"


def test_leader_of_other_items_decides_nothing(tmp_path: Path) -> None:
    race = Race(objective=ACC, error=0.05, seed=0, leader_file=leader_file(tmp_path, np.ones(ITEMS)))
    race.read_leader()
    own = {"toy_topics/doc_id": np.arange(30), "toy_topics/acc": np.zeros(30)}
    assert decision(race, 0, own, {"toy_topics": range(ITEMS)}) is not None
    assert decision(race, 0, own, {"toy_topics": range(ITEMS + 1)}) is None
