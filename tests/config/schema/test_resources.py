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
def test_secret_in_setup_is_refused(line):
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
def test_setup_without_secret_is_valid(line):
    assert EnvConfig(setup=[line]).setup == [line]


@pytest.mark.parametrize(
    "name", ["PGPASSFILE", "PWD", "TOKENIZERS_PARALLELISM", "AWS_ACCESS_KEY_ID", "KEYBOARD"]
)
def test_similar_names_are_no_secrets(name):
    assert EnvConfig(vars={name: "x"}).vars == {name: "x"}
