"""Directions that a metric's name tells, and those it does not."""

from __future__ import annotations

import pytest

from hpotune.config.metric_direction import known_sense, plain_sense


@pytest.mark.parametrize(
    ("metric", "sense"),
    [
        ("acc_norm", "maximize"),
        ("exact_match,strict-match", "maximize"),
        ("eval_loss", "minimize"),
        ("word_perplexity", "minimize"),
        ("bits_per_byte", "minimize"),
        ("power", None),
        ("answer_rate", None),
        ("counter", None),
        ("passes", None),
        ("acc_loss", None),
    ],
)
def test_whole_words_tell_the_direction_of_a_metric(metric, sense):
    assert known_sense(metric) == sense


@pytest.mark.parametrize(
    ("metric", "sense"),
    [
        ("loss", "minimize"),
        ("val_acc", "maximize"),
        ("f1", "maximize"),
        ("loss_of_trust", None),
        ("value", None),
    ],
)
def test_only_plain_names_tell_the_direction_of_a_number_of_ones_own(metric, sense):
    assert plain_sense(metric) == sense
