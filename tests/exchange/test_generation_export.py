"""generation_config.json of an export: the settings of the trial, over those of merged weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpotune.config.load import Study, build_study
from hpotune.config.yaml_source import parse_source
from hpotune.exchange.generation_export import FILE, settings_page, write_generation_config
from hpotune.records.trial import TrialRow

STUDY = """\
name: answers
model: {path: org/model}
score:
  objective: {task: gsm8k, metric: "exact_match,strict-match"}
  generation: GENERATION
budget: {trials: 4}
"""
ROW = TrialRow(
    number=3, kind="trial", state="finished", params={"score.generation.num_beams": 2}, values=(0.25,)
)


def study(generation: str) -> Study:
    return build_study(parse_source(STUDY.replace("GENERATION", generation), path=Path("study.yaml")))


@pytest.mark.parametrize("own", [None, {"eos_token_id": 2, "num_beams": 1, "_from_model_config": 1}])
def test_settings_are_written_by_transformers_names(own: dict[str, int] | None, tmp_path: Path):
    from transformers import GenerationConfig

    if own is not None:
        (tmp_path / FILE).write_text(json.dumps(own))
    write_generation_config(tmp_path, study("{num_beams: {int: [1, 4]}, max_gen_toks: 9, until: '##'}"), ROW)
    found = GenerationConfig.from_pretrained(tmp_path)
    assert (found.num_beams, found.max_new_tokens, found.stop_strings) == (2, 9, ["##"])
    assert "_from_model_config" not in json.loads((tmp_path / FILE).read_text())
    assert found.eos_token_id == (None if own is None else 2)


def test_nothing_is_written_without_settings(tmp_path: Path):
    text = STUDY.replace("  generation: GENERATION\n", "  num_fewshot: {int: [0, 4]}\n")
    plain = build_study(parse_source(text, path=Path("study.yaml")))
    row = TrialRow(number=3, kind="trial", state="finished", params={"score.num_fewshot": 2}, values=(0.25,))
    write_generation_config(tmp_path, plain, row)
    assert not list(tmp_path.iterdir())
    assert "asked with 2 examples" in settings_page(plain, row)


def test_page_says_what_was_not_trained():
    page = settings_page(study("{num_beams: {int: [1, 4]}}"), ROW)
    assert "No weights were trained: load them from org/model." in page
    assert "| score.generation.num\\_beams | 2 |" in page or "| score.generation.num_beams | 2 |" in page
    assert "| gsm8k/exact" in page
