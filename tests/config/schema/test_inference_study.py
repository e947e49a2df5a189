"""A study without data trains nothing: what it may say, and that a forgotten section is still an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.checks.study_file import check
from hpotune.config.load import Study, build_study
from hpotune.config.yaml_source import parse_source
from hpotune.errors import StudyFileError

STUDY = """\
name: answers
model: {path: org/model}
score:
  objective: {task: gsm8k, metric: "exact_match,strict-match"}
  generation: {num_beams: {int: [1, 4]}}
budget: {trials: 4}
"""
OBJECTIVE = 'objective: {task: gsm8k, metric: "exact_match,strict-match"}'


def load(text: str) -> Study:
    return build_study(parse_source(text, path=Path("study.yaml")))


def test_study_without_data_trains_nothing():
    config = load(STUDY).config
    assert (config.trains, config.has_baseline) == (False, True)
    examples = STUDY.replace("generation: {num_beams: {int: [1, 4]}}", "num_fewshot: {int: [0, 4]}")
    assert not load(examples).config.trains
    with_data = load(f"{STUDY}data: {{path: rows.jsonl}}\n")
    assert with_data.config.trains
    assert with_data.base().trains


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  generation: {num_beams: {int: [1, 4]}}\n", "", "data: is missing; fine-tuning needs both"),
        ("budget:", "lora: {r: 8}\nbudget:", "data: is missing; fine-tuning needs both"),
        ("budget:", "train: {max_steps: 8}\nbudget:", "data: is missing; fine-tuning needs both"),
        (OBJECTIVE, "objective: {metric: eval_loss}", "'eval_loss' is not measured, since nothing is trained"),
        (
            OBJECTIVE,
            "objective: {metric: samples_per_second, direction: maximize}",
            "'samples_per_second' is not measured, since nothing is trained without data; name a task, or one of "
            "sequences_per_second",
        ),
        (
            "budget:",
            "search: {pruner: asha}\nbudget:",
            "search.pruner: rungs by share are parts of a training, and nothing is trained without data; write rungs: "
            "{unit: items",
        ),
        ("budget:", "search: {algorithm: pbt}\nbudget:", "algorithm: pbt continues trainings"),
        ("budget:", "best: {minimize: train_seconds}\nbudget:", "best: 'train_seconds' is not measured"),
        ("budget:", "keep: {best: 2}\nbudget:", "keep: is used by training only, and without data nothing is trained"),
        ("budget:", "checks: {reload: false}\nbudget:", "checks.reload: is used by training only"),
    ],
)  # fmt: skip
def test_mistakes_are_named(old: str, new: str, says: str):
    with pytest.raises(StudyFileError) as error:
        load(STUDY.replace(old, new))
    assert says in str(error.value)


def test_rungs_of_items_are_allowed():
    text = STUDY.replace("budget:", "search: {pruner: asha, rungs: {unit: items, at: [10, 100]}}\nbudget:")
    assert load(text).config.search.ladder is not None


def test_check_says_that_nothing_is_trained(tmp_path: Path):
    (tmp_path / "study.yaml").write_text(STUDY)
    assert any(
        "has no data, so nothing is trained" in line for line in check(tmp_path / "study.yaml").warnings
    )
