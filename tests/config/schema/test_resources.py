"""What may not stand in the sections that make the job script."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hpotune.config.schema.resources import EnvConfig


@pytest.mark.parametrize(
    "line",
    [
        "export HF_TOKEN=abc",
        "export A=1 MYSQL_PWD=x",
        "module load a; PGPASSWORD='x y' psql",
        "export MY_API_KEY=x",
    ],
)
def test_a_secret_in_a_setup_line_is_refused_and_not_shown(line):
    with pytest.raises(ValidationError, match="a secret, and job scripts are readable"):
        EnvConfig(setup=[line])


@pytest.mark.parametrize(
    "line",
    [
        "export HF_TOKEN=$(cat ~/.token)",
        'export HF_TOKEN="$MINE"',
        "export PWD=/a",
        "TOKENIZERS_PARALLELISM=false a",
    ],
)
def test_a_line_without_a_secret_is_taken(line):
    assert EnvConfig(setup=[line]).setup == [line]


@pytest.mark.parametrize(
    "name", ["PGPASSFILE", "PWD", "TOKENIZERS_PARALLELISM", "AWS_ACCESS_KEY_ID", "KEYBOARD"]
)
def test_names_that_only_look_like_secrets_are_taken(name):
    assert EnvConfig(vars={name: "x"}).vars == {name: "x"}
