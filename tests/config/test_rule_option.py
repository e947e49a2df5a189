"""`--rule`, and the section `best` of a study file: what is a rule, and which names a study measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.load import build_study
from hpotune.config.rule_option import parse_rule
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import parse_source
from hpotune.errors import StudyFileError
from tests.fixtures.report_rows import FINETUNE, config
from tests.fixtures.wrong_studies import FINETUNE as FILE

SCORE = {
    "objective": [
        {"task": "hellaswag", "metric": "acc_norm"},
        {"metric": "train_seconds", "direction": "minimize"},
    ],
    "constraints": [{"metric": "peak_memory_gb", "max": 40}],
    "record": ["eval_loss", "piqa"],
    "test": ["mmlu"],
}


def tuned() -> StudyConfig:
    return config(**FINETUNE, score=SCORE, checks={"baseline": False})


@pytest.mark.parametrize("braces", ["{%s}", "%s"])
def test_rule_is_read_without_braces(braces: str) -> None:
    text = braces % 'maximize: piqa/acc, subject_to: ["peak_memory_gb <= 38", "gpu_hours / seconds < 2"]'
    rule = parse_rule(text, tuned(), measured=())
    assert (rule.metric, rule.sense) == ("piqa/acc", "maximize")
    assert rule.names == {"piqa/acc", "peak_memory_gb", "gpu_hours", "seconds"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("acc", "best.acc: unknown key; valid: maximize, minimize, subject_to"),
        ("maximise: acc", "did you mean 'maximize'?"),
        ("", "best: maximize: is missing"),
        ("{", "not YAML"),
        ("maximize: [a]", "needs text"),
        ("maximize: eval_loss, minimize: eval_loss", "exclude each other; keep one"),
        ("subject_to: peak_memory_gb", "'peak_memory_gb' is not a condition"),
        ("subject_to: peak_memory <= 3", "'peak_memory' is not measured; did you mean 'peak_memory_gb'?"),
        ("maximize: mmlu/acc", "'mmlu/acc' is of a sealed task (score.test)"),
        ("maximize: mmlu_anatomy/acc", "is of a sealed task"),
        ("maximize: arc_easy/acc", "'arc_easy/acc' is not measured"),
        ("maximize: hellaswag", "'hellaswag' is not measured; did you mean 'hellaswag/acc_norm'?"),
    ],
)
def test_wrong_rules_are_one_line(text: str, reason: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        parse_rule(text, tuned(), measured=())
    [line] = caught.value.mistakes
    assert line.startswith(f"--rule {text!r}: ")
    assert reason in line
    assert "\n" not in line


def test_unmeasured_name_of_a_function() -> None:
    """A function may return any number, so its name is compared with what trials returned."""
    assert parse_rule("minimize: loss", config(), measured=()).metric == "loss"
    with pytest.raises(StudyFileError, match="no finished trial measured 'los'; did you mean 'loss'"):
        parse_rule("minimize: los", config(), measured=["loss", "acc"])


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        (
            "{maximize: eval_los}",
            "study.yaml:19: best: 'eval_los' is not measured; did you mean 'eval_loss'?",
        ),
        ("{minimize: eval_loss}", "study.yaml:19: best: 'eval_loss' needs data.validation above 0"),
        ("{maximize: 3}", "study.yaml:19: best.maximize=3 needs text"),
    ],
)
def test_errors_of_a_file_have_lines(rule: str, where: str) -> None:
    rows = FILE.replace("{metric: eval_loss}", "{metric: train_loss}")
    text = rows.replace("prompt: alpaca", "prompt: alpaca\n  validation: 0") + f"best: {rule}\n"
    with pytest.raises(StudyFileError) as caught:
        build_study(parse_source(text, path=Path("study.yaml")))
    assert where in str(caught.value)
