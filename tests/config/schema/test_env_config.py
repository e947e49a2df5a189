"""The section `env`: folders of nodes, one-line texts, and which study has which key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from hpotune.config.load import Study
from hpotune.config.schema.env_config import EnvConfig
from hpotune.errors import StudyFileError


@pytest.mark.parametrize("text", ["$TMPDIR", "${SLURM_TMPDIR}/models", "/local/scratch", "$X/y"])
def test_stage_takes_folders_of_a_node(text: str) -> None:
    assert EnvConfig(stage=text).stage == text


@pytest.mark.parametrize("text", ["scratch", "./x", "~/x", "", "$", "$1", "${A", "/a\nb", "$A-b", "TMPDIR"])
def test_stage_refuses_other_texts(text: str) -> None:
    with pytest.raises(ValidationError, match=r"absolute folder of the node|is empty|needs one line"):
        EnvConfig(stage=text)


def test_stage_needs_a_model(make_study: Callable[..., Study]) -> None:
    env: dict[str, Any] = {"stage": "$TMPDIR"}
    with pytest.raises(StudyFileError, match="copies the base model, and python has none; remove it"):
        make_study(env=env)
