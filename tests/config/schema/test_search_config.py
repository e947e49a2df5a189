"""The keys of `search` that concern what follows the search."""

from __future__ import annotations

import pytest

from hpotune.config.schema.search_config import SearchConfig
from tests.fixtures.report_rows import config


def test_one_repeat_has_no_spread() -> None:
    with pytest.raises(ValueError, match="repeats: 1: one training has no spread; needs 0, or at least 2"):
        SearchConfig(repeats=1)
    assert [SearchConfig(repeats=count).repeats for count in (0, 2, 5)] == [0, 2, 5]


def test_populations_cannot_be_repeated() -> None:
    with pytest.raises(ValueError, match="a trial of pbt changes its values while it trains"):
        SearchConfig(algorithm="pbt", repeats=2)


def test_programs_with_rungs_are_not_repeated() -> None:
    with pytest.raises(ValueError, match="repeats run without rungs"):
        config(search={"pruner": "asha", "repeats": 2})
