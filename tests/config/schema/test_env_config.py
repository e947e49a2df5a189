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


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"packages_to_install": ["-r x"]}, "is an option of pip"),
        ({"packages_to_install": ["a"], "container": "i.sif"}, "install them in the image"),
        ({"packages_to_install": ["a"], "venv": None}, "needs venv: auto"),
        ({"pip_index_url": "https://u:p@index.example/simple"}, "holds a name or password"),
        ({"pip_index_url": ["ftp://x"]}, "needs the address of an index"),
    ],
)
def test_packages_are_checked(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        EnvConfig.model_validate(values)


def test_index_urls_keep_their_order() -> None:
    urls = ["https://a.example/simple", "https://b.example/simple"]
    assert EnvConfig.model_validate({"pip_index_url": urls}).index_urls == urls
    assert EnvConfig(pip_index_url=urls[0]).index_urls == urls[:1]
    assert EnvConfig().index_urls == []
