"""A whole study file: every key of the documented example, corners, points."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.load import Study, build_study
from hpotune.config.schema import field_text
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import parse_source
from hpotune.errors import StudyFileError

EXAMPLE = """\
name: llama3-alpaca
model: {path: meta-llama/Llama-3.2-3B, revision: main, dtype: bfloat16}
data:
  path: tatsu-lab/alpaca
  split: train
  prompt: alpaca
  max_length: 512
  validation: 0.05
lora:
  r: {int: [2, 256], log: true}
  lora_alpha: {expr: "2 * lora.r"}
  lora_dropout: {float: [0.0, 0.5]}
  target_modules: {choice: [[q_proj, v_proj], all-linear]}
train:
  learning_rate: {float: [1.0e-6, 1.0e-2], log: true, prior: 2.0e-4}
  weight_decay: {float: [1.0e-5, 0.1], log: true}
  optim: {choice: [adamw_torch, sgd]}
  sgd_momentum: {float: [0.5, 0.99], when: {train.optim: sgd}}
  num_train_epochs: 1
score:
  objective: {task: hellaswag, metric: acc_norm, direction: maximize, goal: 0.60}
  record: [eval_loss, train_loss, samples_per_second, peak_memory_gb, gpu_hours]
  test: [mmlu]
search: {algorithm: auto, seed: 0}
budget: {trials: 50, parallel: 8, max_failed: 5, gpu_hours: 200, until: 2026-12-24}
execution: {mode: async, trials_per_job: auto}
resources:
  {partition: a100, account: naiss-1, gpus: "A100:4", nodes: 1, cpus_per_gpu: 16, time: "12:00:00", extra: {}}
env: {modules: [], venv: auto, container: null, setup: [], vars: {}}
store: auto
keep: {best: 3}
"""
DRAWN = {
    "lora.r": 16, "lora.lora_dropout": 0.1, "lora.target_modules": ["q_proj", "v_proj"], "train.learning_rate": 1e-4,
    "train.weight_decay": 0.01, "train.optim": "sgd", "train.sgd_momentum": 0.9,
}  # fmt: skip


def load(text: str) -> Study:
    return build_study(parse_source(text, path=Path("study.yaml")))


def test_documented_example_is_valid():
    study = load(EXAMPLE)
    assert {r.name for r in study.space.searched} == DRAWN.keys()
    assert study.config.budget.trials == 50
    assert study.config.resources.gpus_per_node == 4
    assert study.config.resources.walltime_min == 720


def test_a_point_gives_typed_sections():
    point = load(EXAMPLE).point(DRAWN)
    assert point.lora == {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "v_proj"],
    }
    assert point.train["sgd_momentum"] == 0.9
    assert point.model is not None
    assert point.model.dtype == "bfloat16"


def test_point_lacks_unmet_conditional_ranges():
    assert "sgd_momentum" not in load(EXAMPLE).point({**DRAWN, "train.optim": "adamw_torch"}).train


def test_the_baseline_is_the_first_corner():
    base = load(EXAMPLE).base()
    assert (base.lora["r"], base.lora["lora_alpha"]) == (2, 4)


@pytest.mark.parametrize(
    "text",
    [
        EXAMPLE.replace("[0.0, 0.5]", "[0.0, 1.5]"),
        EXAMPLE.replace("[adamw_torch, sgd]", "[adamw_torch, sdg, sgd]"),
        EXAMPLE.replace("[0.5, 0.99], when", "[0.5, 1.99], when"),
        EXAMPLE.replace("num_train_epochs: 1", "num_train_epochs: {int: [0, 3]}"),
    ],
    ids=["last corner", "a choice in the middle", "a corner under a condition", "first corner"],
)
def test_corner_errors_are_one_line(text):
    with pytest.raises(StudyFileError) as raised:
        load(text)
    assert len(raised.value.mistakes) == 1


def test_expression_is_checked_at_corners():
    text = EXAMPLE.replace('{expr: "2 * lora.r"}', '{expr: "lora.r // (train.num_train_epochs - 3) + 999"}')
    text = text.replace("num_train_epochs: 1", "num_train_epochs: {int: [1, 3]}")
    with pytest.raises(
        StudyFileError, match=r"cannot be computed: .*zero at lora.r=2, train.num_train_epochs=3"
    ):
        load(text)


def test_errors_hide_pydantic_wording():
    text = EXAMPLE.replace("trials: 50", "trials: many").replace("dtype: bfloat16", "dtype: bf16")
    with pytest.raises(StudyFileError) as raised:
        load(text)
    for word in ("pydantic", "Input should", "Value error", "valid integer"):
        assert word not in str(raised.value)


@pytest.mark.parametrize("key", sorted(StudyConfig.model_fields))
def test_every_section_has_a_description(key):
    field = StudyConfig.model_fields[key]
    texts = [
        field_text(StudyConfig, key),
        *(
            getattr(c, "__doc__", None)
            for c in (field.annotation, *getattr(field.annotation, "__args__", ()))
        ),
    ]
    assert any(texts)


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("30", 30),
        ("30:00", 30),
        ("1:00:00", 60),
        ("0:00:30", 1),
        ("2-3", 3060),
        ("1-00:30", 1470),
        ("1-0:0:1".replace("0:0:1", "00:00:01"), 1441),
    ],
)
def test_wall_time_follows_slurm(time, minutes):
    assert (
        load(EXAMPLE.replace('time: "12:00:00"', f'time: "{time}"')).config.resources.walltime_min == minutes
    )


def test_objective_list_is_multi_objective():
    one = "  objective: {task: hellaswag, metric: acc_norm, direction: maximize, goal: 0.60}\n"
    two = "  objective:\n    - {task: hellaswag, metric: acc_norm}\n    - {metric: eval_loss}\n"
    senses = [objective.sense for objective in load(EXAMPLE.replace(one, two)).config.score.objective]
    assert senses == ["maximize", "minimize"]


def test_misspelt_range_kind_is_an_error() -> None:
    text = (
        "name: s\npython: f.py:f\nparams: {x: {itn: [0, 9]}}\n"
        "score: {objective: {metric: loss}}\nbudget: {trials: 2}\n"
    )
    with pytest.raises(
        StudyFileError, match="s.yaml:3: params.x: 'itn' is not a kind of range; did you mean 'int'?"
    ):
        build_study(parse_source(text, path=Path("s.yaml")))


def test_baseline_has_the_tasks_own_settings():
    text = EXAMPLE.replace(
        "  record: [", "  num_fewshot: {choice: [0, 5]}\n  generation: GENERATION\n  record: ["
    )
    searched = load(text.replace("GENERATION", "{max_gen_toks: 16, num_beams: {int: [1, 4]}}"))
    assert searched.base().score.generation.given == {}
    assert searched.base().score.num_fewshot is None
    drawn = {**DRAWN, "score.num_fewshot": 5, "score.generation.num_beams": 3}
    point = searched.point(drawn).score
    assert (point.num_fewshot, point.generation.given) == (5, {"num_beams": 3, "max_gen_toks": 16})
    fixed = load(text.replace("GENERATION", "{max_gen_toks: 16}"))
    assert fixed.base().score.generation.given == {"max_gen_toks": 16}


def test_examples_of_one_objective_are_searched():
    one = "{task: hellaswag, metric: acc_norm, direction: maximize, goal: 0.60}"
    other = "[{task: hellaswag, metric: acc_norm, num_fewshot: {int: [0, 5]}}, {metric: eval_loss}]"
    study = load(EXAMPLE.replace(one, other))
    assert study.base().score.objective[0].num_fewshot is None
    assert study.point({**DRAWN, "score.objective.0.num_fewshot": 4}).score.objective[0].num_fewshot == 4


@pytest.mark.parametrize(
    ("kind", "metric", "mistake"),
    [
        ("regression", "eval_accuracy", "and problem_type: regression; it has eval_loss, eval_pearson"),
        ("multi_label_classification", "eval_matthews", "eval_loss, eval_accuracy, eval_f1_macro, eval_f1_micro"),
        ("single_label_classification", "eval_pearson", "eval_accuracy, eval_f1, eval_f1_macro, eval_matthews"),
        (None, "eval_f1", "is not measured with task: causal_lm; it has eval_loss"),
        ("regression", "eval_pearson", None),
        ("single_label_classification", "eval_f1", None),
    ],
)  # fmt: skip
def test_metric_fits_kind_of_label(kind: str | None, metric: str, mistake: str | None) -> None:
    head = f"task: sequence_classification, problem_type: {kind}" if kind else "task: causal_lm"
    text = (
        f"name: s\nmodel: {{path: m, {head}}}\ndata: {{path: d, prompt: text}}\nbudget: {{trials: 2}}\n"
        f"score: {{objective: {{metric: {metric}}}}}\n"
    )
    if mistake is None:
        assert load(text).config.score.objective[0].sense == "maximize"
        return
    with pytest.raises(StudyFileError) as raised:
        load(text)
    assert mistake in str(raised.value)


@pytest.mark.parametrize(
    ("model", "train", "mistake"),
    [
        ("{path: m, problem_type: regression}", "", "problem_type: needs task: sequence_classification"),
        (
            "{path: m, task: sequence_classification, problem_type: regression, num_labels: 3}",
            "",
            "has one output",
        ),
        (
            "{path: m, task: sequence_classification, problem_type: regression}",
            "train: {label_smoothing_factor: 0.1}\n",
            "train.label_smoothing_factor: has no effect with model.problem_type: regression",
        ),
    ],
)
def test_problem_type_fits_other_keys(model: str, train: str, mistake: str) -> None:
    with pytest.raises(StudyFileError) as raised:
        load(
            f"name: s\nmodel: {model}\ndata: {{path: d, prompt: text}}\n{train}budget: {{trials: 2}}\n"
            "score: {objective: {metric: eval_loss}}\n"
        )
    assert mistake in str(raised.value)
