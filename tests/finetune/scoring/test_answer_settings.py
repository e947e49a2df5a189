"""score.generation on built requests: it overrides the task's own settings, and what has no effect is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hpotune.config.schema.study_config import ScoreConfig
from hpotune.finetune.provenance_record import request_hashes
from hpotune.finetune.scoring.answer_settings import ask_with, check_searched
from hpotune.finetune.scoring.task_requests import BuiltTasks, build_requests, requested_tasks
from hpotune.finetune.trial_errors import UserError
from tests.fixtures.tiny_model import tiny_tokenizer

TASK: dict[str, Any] = {
    "task": "free",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{q}}",
    "doc_to_target": "{{a}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOICE: dict[str, Any] = {
    **{key: value for key, value in TASK.items() if key != "generation_kwargs"},
    "task": "choice",
    "output_type": "multiple_choice",
    "doc_to_choice": ["red", "blue"],
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
FREE = {"task": "free", "metric": "exact_match"}
ACC = {"task": "choice", "metric": "acc"}
SPEED = {"metric": "sequences_per_second", "direction": "maximize"}
Ask = Callable[..., tuple[BuiltTasks, ScoreConfig, list[str]]]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def ask(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Ask:
    """Writes two tasks, builds the requests of a score section and asks with its settings."""
    rows = [{"q": f"Question {n}?", "a": ["red", "blue"][n % 2]} for n in range(4)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for keys in (TASK, CHOICE):
        files = {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "test.jsonl")}}}
        (tmp_path / f"{keys['task']}.yaml").write_text(yaml.safe_dump({**keys, **files}))

    def call(
        objective: object = FREE, *, positions: int = 64, sealed: bool = False, **score: object
    ) -> tuple[BuiltTasks, ScoreConfig, list[str]]:
        section = ScoreConfig.model_validate(
            {"objective": objective, "include_path": str(tmp_path), "record": [], **score}
        )
        config = LlamaConfig(max_position_embeddings=positions, vocab_size=len(tokenizer))
        built = build_requests(
            requested_tasks(section),
            score=section,
            prompt="text",
            tokenizer=tokenizer,
            config=config,
            data_root=None,
        )
        asked = ask_with(built, section, tokenizer=tokenizer, config=config, sealed=sealed)
        return built, section, asked

    return call


def settings_of(built: BuiltTasks) -> list[dict[str, Any]]:
    return [
        json.loads(str(one.first["generation"]))
        for one in built.summary().values()
        if "generation" in one.first
    ]


def test_settings_override_the_task(ask: Ask):
    built, *_ = ask(generation={"num_beams": 3, "max_gen_toks": 4})
    assert settings_of(built) == [{"until": ["\n"], "max_gen_toks": 4, "do_sample": False, "num_beams": 3}]
    before = request_hashes(built)
    built.set_generation({"num_beams": 2})
    assert settings_of(built)[0]["max_gen_toks"] == 8
    assert request_hashes(built) != before
    built.set_generation({})
    assert settings_of(built) == [TASK["generation_kwargs"]]


def test_other_tasks_keep_their_requests(ask: Ask):
    both = [FREE, ACC]
    plain, changed = ask(both)[0], ask(both, generation={"num_beams": 2})[0]
    assert request_hashes(plain)["choice"] == request_hashes(changed)["choice"]
    assert request_hashes(plain)["free"] != request_hashes(changed)["free"]


@pytest.mark.parametrize(
    ("objective", "score", "says"),
    [
        (ACC, {"generation": {"num_beams": 2}}, "score.generation: num_beams has no effect: no task of this study"),
        ([ACC, SPEED], {}, "score.objective: sequences_per_second is measured on tasks that generate their answers"),
        (FREE, {"generation": {"do_sample": True}}, "needs a temperature, and free has none of its own; add it"),
        (FREE, {"generation": {"min_new_tokens": 9}}, "min_new_tokens=9 is above the 8 tokens (max_gen_toks) that"),
        (
            FREE,
            {"generation": {"max_gen_toks": 64}},
            "score.objective: free generates up to 64 tokens (max_gen_toks), but the model reads at most 64",
        ),
    ],
)  # fmt: skip
def test_unread_settings_are_errors(objective: object, score: dict[str, Any], says: str, ask: Ask):
    with pytest.raises(UserError) as error:
        ask(objective, **score)
    assert says in str(error.value)


def test_long_questions_are_warned_of(ask: Ask):
    assert ask(positions=64)[2] == []
    (warning,) = ask(positions=64, generation={"max_gen_toks": 60})[2]
    assert "the longest question of free has" in warning
    (warning,) = ask(generation={"num_beams": 2, "do_sample": True, "temperature": 1.0})[2]
    assert "the answers depend on score.batch_size and on the number of ranks" in warning


def test_sealed_tasks_need_not_generate(ask: Ask):
    assert ask(ACC, sealed=True, generation={"num_beams": 2})[2] == []


def test_range_without_effect_is_an_error(ask: Ask):
    built, score, _ = ask(ACC, record=["free"], generation={"num_beams": 2})
    with pytest.raises(UserError, match="has a range, and no objective depends on it"):
        check_searched(built, score)
    for objective in (FREE, [ACC, SPEED]):
        built, score, _ = ask(objective, record=["free"], generation={"num_beams": 2})
        check_searched(built, score)


def test_examples_default_to_the_section(ask: Ask):
    built, *_ = ask([FREE, {**ACC, "num_fewshot": 0}], num_fewshot=None)
    assert {call.settings.num_fewshot for call in built.calls} == {None, 0}
    score = ScoreConfig.model_validate(
        {"objective": [FREE, {**ACC, "num_fewshot": 0}], "record": [], "num_fewshot": 3}
    )
    assert [one.num_fewshot for one in requested_tasks(score)] == [3, 0]
