"""The keys of score.generation: those of transformers and lm-eval, and one error for what has no effect."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hpotune.config.schema.generation_settings import REFUSED, SAMPLING, GenerationSettings
from hpotune.config.schema.score_config import ScoreConfig


def test_names_are_those_of_transformers():
    from transformers import GenerationConfig

    known = vars(GenerationConfig()).keys() | {"max_gen_toks", "until"}
    assert GenerationSettings.model_fields.keys() <= known
    not_fields = {name for name in known if name.startswith("_") or name == "transformers_version"}
    assert known - not_fields <= GenerationSettings.model_fields.keys() | REFUSED.keys()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"temperature": 0.5}, "temperature: needs do_sample: true; add it"),
        (
            {"do_sample": False, "top_k": 5},
            "top_k: has no effect with do_sample: false; remove it, or make it a range with when: "
            "{score.generation.do_sample: [true]}",
        ),
        ({"length_penalty": 2.0}, "length_penalty: has no effect with one beam"),
        ({"num_beams": 1, "early_stopping": True}, "early_stopping: has no effect with one beam"),
        ({"min_new_tokens": 9, "max_gen_toks": 8}, "min_new_tokens: 9 is above max_gen_toks: 8"),
        ({"max_new_tokens": 8}, "max_new_tokens: is not supported here: write max_gen_toks"),
        ({"penalty_alpha": 0.6}, "penalty_alpha: is not supported here: transformers has moved it"),
        ({"do_sample": True, "temperature": 0.0}, "greater than 0"),
        ({"do_sample": True, "top_p": 1.5}, "less than or equal to 1"),
        ({"num_beams": 0}, "greater than or equal to 1"),
        ({"top_kk": 3}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], says: str):
    with pytest.raises(ValidationError) as error:
        ScoreConfig.model_validate({"objective": {"metric": "eval_loss"}, "generation": given})
    assert says in str(error.value)


def test_given_settings_are_handed_on():
    given = {"do_sample": True, "top_k": 5, "num_beams": 2, "length_penalty": 0.5, "until": ["a", "b"]}
    assert GenerationSettings.model_validate(given).given == given
    assert all(name in GenerationSettings.model_fields for name in SAMPLING)
