"""The repeats as a view: of a real study of repeats in a store, without training."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hpotune.launch.prepare import PreparedStudy, prepare
from hpotune.launch.repeat_study import open_repeats
from hpotune.records.trial import Failure, TrialResult, Worker
from hpotune.reporting.derived.repeats_table import progress_line, repeats_rows
from hpotune.reporting.finalists import choose_finalists
from hpotune.reporting.views.best import BestResult, best_result
from hpotune.reporting.views.status import study_status
from hpotune.storage import Claim

STUDY = """\
name: s
python: f.py:f
params: {x: {float: [0, 1]}}
score: {objective: {metric: loss}}
search: {algorithm: sobol, finalists: 2, repeats: 2}
budget: {trials: 3}
"""
WORKER = Worker(job="local", host="n1", pid=4_000_000)


def end(study: PreparedStudy, *values: float | None, stderr: float | None = None) -> None:
    """End a trial for each value; None: it fails."""
    for value in values:
        claim = study.store.claim(WORKER)
        assert isinstance(claim, Claim)
        if value is None:
            study.store.record_failure(claim.trial_id, Failure(cause="oom", message="no"), owner=WORKER)
            continue
        result = TrialResult(number=claim.row.number, state="finished", values=[value], stderrs=[stderr])
        study.store.complete(claim.trial_id, result)


@pytest.fixture
def searched(tmp_path: Path) -> PreparedStudy:
    """A search that has ended; smaller is better, and trial 1 is the best."""
    (tmp_path / "f.py").write_text("def f(x):\n    return x\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    study = prepare(tmp_path / "study.yaml", chosen=None, data_root=None)
    end(study, 3.0, 1.0, 1.1)
    return study


def repeats_of(study: PreparedStudy) -> PreparedStudy:
    rows, config = study.store.rows(), study.study.config
    return open_repeats(study.folder, study.study, rows, choose_finalists(study.folder, config, rows))


def best(study: PreparedStudy, **more: Any) -> BestResult:
    return best_result(study.folder, study.study.config, study.store.rows(), **more)


def test_search_decides_until_the_end(searched: PreparedStudy) -> None:
    assert best(searched).repeats is not None
    assert best(searched).repeats.state == "not started"  # type: ignore[union-attr]
    again = repeats_of(searched)
    end(again, 1.5, 1.0, 1.6)
    found = best(searched)
    assert found.repeats is not None
    assert (found.repeats.state, found.repeats.winner, found.repeats.finished) == ("running", None, 3)
    assert found.best is not None
    assert found.best.number == 1


def test_mean_of_new_seeds_decides(searched: PreparedStudy) -> None:
    again = repeats_of(searched)
    end(again, 1.5, 1.0, 1.7, 1.1)
    found = best(searched)
    assert found.repeats is not None
    assert (found.repeats.search_best, found.repeats.winner) == (1, 2)
    assert found.best is not None
    assert found.best.number == 2
    one = found.repeats.chosen
    assert one is not None
    assert one.mean == pytest.approx(1.05)
    assert one.error is not None
    assert (one.error.items, one.error.degrees) == (None, 2.0)
    assert one.expected is not None
    assert one.expected.low < 1.05 < one.expected.high
    first = found.repeats.trials[0]
    assert first.mean == pytest.approx(1.6)
    assert first.behind is not None
    assert first.behind.value == pytest.approx(0.55)  # better by so much, though smaller
    alone = best(searched, with_repeats=False)
    assert (alone.repeats, alone.best.number if alone.best else None) == (None, 1)
    assert choose_finalists(searched.folder, searched.study.config, searched.store.rows()) == [1, 2]


def test_failed_repeats_are_left_out(searched: PreparedStudy) -> None:
    """A finalist with one score has no spread of its own and is not compared."""
    again = repeats_of(searched)
    end(again, 1.5, None, 1.7, 1.1)
    found = best(searched).repeats
    assert found is not None
    assert (found.state, found.winner) == ("failed", 1)
    assert [one.error is not None for one in found.trials] == [True, False]
    assert [one.state for one in found.trials[1].repeats] == ["failed", "finished"]
    assert repeats_rows(found)[1][1][-1] == "not compared: needs 2 finished seeds"
    counts = study_status(
        again.folder, again.study.config, again.store.rows(), [], [], now=datetime.now()
    ).trials
    assert (counts.finished, counts.failed, counts.waiting, counts.left) == (3, 1, 0, 0)


def test_huge_scores_are_not_compared(searched: PreparedStudy) -> None:
    """Their squares are no numbers: the search decides."""
    again = repeats_of(searched)
    end(again, 1e200, 1.0, 1.7e200, 1.1)
    found = best(searched)
    assert found.repeats is not None
    assert (found.repeats.state, found.repeats.winner) == ("done", None)
    assert found.best is not None


def test_standard_errors_are_not_divided(searched: PreparedStudy) -> None:
    """All seeds answer the same items: their error is not smaller with more seeds."""
    again = repeats_of(searched)
    end(again, 1.5, 1.0, 1.7, 1.1, stderr=0.3)
    one = best(searched).repeats.chosen  # type: ignore[union-attr]
    assert one is not None
    assert one.error is not None
    assert one.error.items == pytest.approx(0.3)
    assert one.error.stderr > 0.3


def test_seeds_without_effect_decide_nothing(searched: PreparedStudy) -> None:
    again = repeats_of(searched)
    end(again, 1.0, 1.1, 1.0, 1.1)
    found = best(searched)
    assert found.repeats is not None
    assert (found.repeats.unchanged, found.repeats.winner, found.decided_by_repeats) == (True, None, False)
    assert "the search decides" in progress_line(found.repeats)
