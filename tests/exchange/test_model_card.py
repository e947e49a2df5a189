"""The model card: metadata that the hub reads, and what the study says of the trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hpotune.config.load import Study, build_study
from hpotune.config.text.outside_text import has_hidden
from hpotune.exchange.model_card import model_card, sealed_lines
from hpotune.records.trial import TrialRow
from hpotune.reporting.views.sealed_test import SealedDifference, SealedScore, SealedTestResult, SealedTrial
from hpotune.workspace.openings import Opening
from tests.exchange.conftest import Tuned

BASE = "HuggingFaceTB/SmolLM2-135M"


def of_the_hub(tuned: Tuned, **data: object) -> Study:
    """The study with a base model and data of the hub."""
    values = dict(tuned.study.template)
    values["model"] = {"path": BASE, "revision": "main"}
    values["data"] = {**values["data"], "path": "tatsu-lab/alpaca", **data}  # type: ignore[dict-item]
    return build_study(replace(tuned.study.source, values=values))


def card(tuned: Tuned, study: Study | None = None, **given: object) -> str:
    options = {"labels": (), "losses": None, **given}
    rows: list[TrialRow] = [
        TrialRow(number=0, kind="baseline", state="finished", params={}, values=(6.5,), stderrs=(None,)),
        *tuned.rows,
    ]
    return model_card(tuned.folder, study or tuned.study, rows, tuned.rows[0], **options)  # type: ignore[arg-type]


def test_metadata_is_read_by_the_hub(tuned: Tuned) -> None:
    read = ModelCard(card(tuned, of_the_hub(tuned))).data
    assert read.base_model == BASE
    assert read.library_name == "peft"
    assert read.datasets == ["tatsu-lab/alpaca"]
    assert read.pipeline_tag == "text-generation"
    (result,) = read.eval_results or []
    assert (result.metric_type, result.metric_value) == ("eval_loss", tuned.rows[0].values[0])


def test_local_paths_are_not_published(tuned: Tuned) -> None:
    text = card(tuned)
    assert str(Path(str(tuned.study.config.model.path)).parent) not in text  # type: ignore[union-attr]
    assert ModelCard(text).data.base_model is None


def test_card_says_what_the_study_says(tuned: Tuned) -> None:
    text = card(tuned, of_the_hub(tuned))
    for part in (
        "| lora.r | 4 |", "| train.learning_rate | 0.005 |", "etter than the base model (6.5)",
        f'AutoModelForCausalLM.from_pretrained("{BASE}", revision="main")', "PeftModel.from_pretrained(base,",
        "| answer | {output} |", "The licence of the base model is not stated",
    ):  # fmt: skip
        assert part in text, part


def test_merged_card_shows_the_check(tuned: Tuned) -> None:
    text = card(tuned, losses=(1.25, 1.2500001))
    assert "1.25 with base model and adapter" in text
    assert ModelCard(text).data.library_name == "transformers"
    assert "PeftModel" not in text


@pytest.mark.parametrize(
    "prompt", ["a | b\n{input}\n---\nlicense: mit", "```{input}", "<b>{input}</b>\u202e | x"]
)
def test_texts_cannot_change_the_card(prompt: str, tuned: Tuned) -> None:
    text = card(tuned, of_the_hub(tuned, prompt=prompt))
    assert ModelCard(text).data.license is None
    (line,) = [one for one in text.splitlines() if one.startswith("| prompt |")]
    assert line.count("|") - line.count("\\|") == 3
    assert "<b>" not in text.replace("\\<", "")
    assert not has_hidden(text)


def test_sealed_scores_show_the_openings(tuned: Tuned) -> None:
    score = SealedScore(task="mmlu", metric="acc", value=0.31, stderr=0.01)
    trial = SealedTrial(
        number=1, state="scored", scores=(score,), subjects=(), metrics={"mmlu/acc": 0.31}, trained_again=False,
        loss=None, recorded_loss=None, failure=None,
    )  # fmt: skip
    base = replace(trial, number=None, scores=(replace(score, value=0.25),))
    difference = SealedDifference(
        number=1, task="mmlu", metric="acc", value=0.06, stderr=0.01, low=0.04, high=0.08, paired=True, p_value=0.001,
        significant=True,
    )  # fmt: skip
    opening = Opening(
        number=1, opened=1.0, user="ann", host="login1", trials=(1,), version="1", commit=None
    )  # fmt: skip
    found = SealedTestResult(
        study="tuned", folder=tuned.folder.path, openings=(opening, replace(opening, number=2)), state="finished",
        tasks=("mmlu",), base=base, trials=(trial,), differences=(difference,), trials_after=3, gpu_hours=0.0,
    )  # fmt: skip
    text = "\n".join(sealed_lines(1, found))
    for part in (
        "opened 2 times", "3 trials of the search ended after the first opening",
        "| mmlu/acc | 0.31 ± 0.01 | 0.25 ± 0.01 |", "difference to the base model 0.060", "significant at 5 %",
    ):  # fmt: skip
        assert part in text, (part, text)
    assert "not scored in it" in "\n".join(sealed_lines(2, found))
