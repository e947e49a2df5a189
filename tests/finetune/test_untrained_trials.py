"""Trials that train nothing: the base model with other settings, alone, on two ranks, and one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpotune.finetune.warm.kept import Kept
from hpotune.records.trial import TrialResult, TrialSpec
from tests.fixtures.answering_tasks import answering_task
from tests.fixtures.tiny_trials import result_of, run_here, start_trial

SAMPLED = {"do_sample": True, "temperature": 1.0}
SPEED = {"metric": "sequences_per_second", "direction": "maximize"}
EXACT = {"task": "toy_generate", "metric": "exact_match,topic"}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answering_task(tmp_path_factory.mktemp("tasks"))


def untrained(
    parent: Path, home: Path, tasks: Path, name: str, *, kind: str = "trial", seed: int = 0, **generation: Any
) -> TrialSpec:
    (parent / name).mkdir()
    score = {"objective": [EXACT, SPEED], "include_path": str(tasks), "generation": generation}
    point = {"model": {"path": str(home / "model"), "dtype": "float64"}, "score": score}
    given = {"study": "s", "number": 1, "kind": kind, "seed": seed, "folder": str(parent / name)}
    return TrialSpec.model_validate({**given, "point": point})


def answers(result: TrialResult) -> tuple[float | None, ...]:
    assert result.state == "finished", result.failure
    return (result.values[0], result.stderrs[0])


def test_untrained_trial_leaves_no_weights(tmp_path: Path, home: Path, tasks: Path) -> None:
    result = run_here(untrained(tmp_path, home, tasks, "a", **SAMPLED))
    assert result.state == "finished"
    assert result.metrics["steps"] == result.metrics["trainable_parameters"] == 0
    assert result.values[1] == result.metrics["sequences_per_second"] > 0
    assert "train_loss" not in result.metrics
    assert "eval_loss" not in result.metrics
    assert result.checks == {}
    assert not (tmp_path / "a/adapter").exists()
    assert not (tmp_path / "a/checkpoint").exists()


def test_two_sharded_ranks_give_same_answers(tmp_path: Path, home: Path, tasks: Path) -> None:
    alone = untrained(tmp_path, home, tasks, "alone", **SAMPLED, repetition_penalty=1.3)
    both = untrained(tmp_path, home, tasks, "both", **SAMPLED, repetition_penalty=1.3)
    assert start_trial(both, processes=2).wait() == 0, (tmp_path / "both/log.txt").read_text()
    found = result_of(both)
    assert answers(found) == answers(run_here(alone))
    assert found.metrics["world_size"] == 2
    assert found.metrics["base_share_per_rank"] == pytest.approx(0.5, abs=0.1)


def test_kept_requests_are_asked_anew(tmp_path: Path, home: Path, tasks: Path) -> None:
    from hpotune.finetune.inputs import load_inputs
    from hpotune.finetune.model.labels import base_config
    from hpotune.finetune.scoring.answer_settings import ask_with
    from hpotune.finetune.scoring.task_requests import build_requests, requested_tasks
    from hpotune.finetune.warm.process_state import ProcessState
    from hpotune.finetune.warm.watched_files import WatchedFiles

    kept, built_times = Kept(state=ProcessState({}), files=WatchedFiles()), []
    for name, settings in (("a", SAMPLED), ("b", {"num_beams": 2}), ("c", {})):
        point = untrained(tmp_path, home, tasks, name, **settings).point
        assert point.model is not None
        tokenizer = load_inputs(point.model, None, data_root=None).tokenizer
        config = base_config(point.model)

        def build() -> Any:
            built_times.append(name)  # noqa: B023 - called in this round
            return build_requests(
                requested_tasks(point.score),  # noqa: B023
                score=point.score,  # noqa: B023
                prompt=None,
                tokenizer=tokenizer,  # noqa: B023
                config=config,  # noqa: B023
                data_root=None,
            )

        built = kept.requests("key", build, str(tmp_path))
        ask_with(built, point.score, tokenizer=tokenizer, config=config)
        asked = dict(built.requests())["toy_generate"][0].args[1]
        assert asked == {"until": ["\n"], "max_gen_toks": 12, "do_sample": False, **settings}
    assert built_times == ["a"]
