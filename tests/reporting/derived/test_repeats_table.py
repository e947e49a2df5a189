"""The repeats for the terminal: each finalist's scores, and the two sources of the error in plain words."""

from __future__ import annotations

from dataclasses import replace

from hpotune.reporting.derived.repeats_table import (
    error_sentences,
    progress_line,
    repeats_rows,
    repeats_table,
    winner_note,
)
from hpotune.reporting.views.repeats import Repeat
from tests.fixtures.repeats_results import repeats_result
from tests.fixtures.report_rows import printed

RESULT = repeats_result(7, 12)


def test_error_is_divided_in_words() -> None:
    first, second = error_sentences(RESULT)
    assert (
        first == "trained again with 3 new seeds: 0.61, 0.62, 0.63; mean 0.62 ± 0.02 (over seeds and items)"
    )
    assert second == (
        "of the variance of that mean 64 % is due to the items (0.016) and 36 % to seeds (0.012); two trainings with "
        "other seeds differ by 0.021 (standard deviation of one, pooled over the finalists, 4 degrees of freedom)"
    )


def test_unknown_item_error_is_said() -> None:
    chosen = RESULT.trials[1]
    assert chosen.error is not None
    bare = replace(chosen, error=replace(chosen.error, items=None))
    first, second = error_sentences(replace(RESULT, trials=(RESULT.trials[0], bare)))
    assert first.endswith("(over seeds; the error over items is not known)")
    assert second.startswith("two trainings with other seeds differ by")


def test_rows_name_the_best() -> None:
    columns, rows = repeats_rows(RESULT)
    assert columns == ("finalist", "search", "new seeds", "mean", "minus the base model", "")
    assert rows[0] == ("7", "0.66", "0.59, 0.6, 0.61", "0.6 ± 0.02", "0.05 (0.01 to 0.09)", "may be the best")
    assert rows[1][-1] == "best"
    assert "significantly worse" in printed(
        repeats_table(
            replace(RESULT, trials=(replace(RESULT.trials[0], may_be_best=False), RESULT.trials[1]))
        )
    )
    assert winner_note(RESULT) == ", by the mean of its new seeds (by the search alone: trial 7)"


def test_progress_says_what_to_do() -> None:
    none = replace(RESULT, state="not started", trials=(), winner=None)
    assert "`hpotune resume /studies/s` starts them" in progress_line(none)
    failed = Repeat(number=5, seed=1, state="failed", value=None)
    waiting = Repeat(number=None, seed=2, state="waiting", value=None)
    trial = replace(RESULT.trials[0], repeats=(*RESULT.trials[0].repeats, failed, waiting))
    part = replace(RESULT, state="failed", stop="3 GPU-hours used", trials=(trial,))
    assert progress_line(part) == (
        "repeats: 3 of 5 finished (1 waiting, 1 failed); stopped: 3 GPU-hours used; `hpotune retry "
        "/studies/s/repeats` repeats failed ones, once the cause is fixed"
    )
