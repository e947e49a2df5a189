"""Which studies may race, and on few items at rungs; what they mean in words."""

from __future__ import annotations

import pytest

from hpotune.config.schema.race_config import RaceConfig, race_note
from hpotune.config.schema.study_config import ScoreConfig, StudyConfig

HELLASWAG = {"task": "hellaswag", "metric": "acc_norm"}


def config(*, score: dict[str, object], **sections: object) -> StudyConfig:
    """A fine-tuning study."""
    base = {"name": "s", "model": {"path": "m"}, "data": {"path": "d.jsonl"}, "budget": {"trials": 9}}
    return StudyConfig.model_validate({**base, "score": {"objective": HELLASWAG, **score}, **sections})


def test_race_is_short_for_an_error() -> None:
    races = [ScoreConfig(objective=[HELLASWAG], race=value).race for value in (True, {"error": 0.01}, False)]
    assert races == [RaceConfig(error=0.05), RaceConfig(error=0.01), None]
    with pytest.raises(ValueError, match=r"needs true, false, or an error such as \{error: 0\.05\}"):
        ScoreConfig(objective=[HELLASWAG], race=0.05)


@pytest.mark.parametrize(
    ("score", "sections", "why"),
    [
        ({"objective": {"metric": "eval_loss"}}, {}, "the objective has none"),
        ({"objective": [HELLASWAG, {"metric": "eval_loss"}]}, {}, "by one objective, and this study has 2"),
        ({"objective": {"task": "wikitext", "metric": "word_perplexity"}}, {}, "is not a mean over items"),
        ({}, {"search": {"algorithm": "pbt"}}, "a trial of pbt is a part of a run"),
        ({}, {"best": {"minimize": "eval_loss"}}, "`best` ranks trials by eval_loss"),
    ],
)
def test_unfit_studies_cannot_race(score: dict, sections: dict, why: str) -> None:
    with pytest.raises(ValueError, match=f"score: race: .*{why}.*; write race: false"):
        config(score={**score, "race": True}, **sections)


def test_rung_items_need_rungs_of_training() -> None:
    assert config(score={"rung_items": 50}, search={"pruner": "asha"}).score.rung_items == 50
    for search in ({}, {"pruner": "wilcoxon", "rungs": {"unit": "items", "at": [50, 100]}}):
        with pytest.raises(ValueError, match="score: rung_items: 50: needs rungs of training"):
            config(score={"rung_items": 50}, search=search)
    with pytest.raises(ValueError, match="rung_items: 50 is not below the objective's limit, 40"):
        config(score={"objective": {**HELLASWAG, "limit": 40}, "rung_items": 50}, search={"pruner": "asha"})


def test_note_says_what_happens() -> None:
    assert race_note(None, None) == ""
    assert "is not scored to its end, and has an estimate (error 0.05)" in race_note(RaceConfig(), None)
    assert race_note(None, 200) == "rungs before the last score 200 items of each task, in random order"
