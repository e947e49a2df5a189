"""Tables of one line an item."""

from __future__ import annotations

from dataclasses import replace

from hpotune.records.trial import Failure, TrialRow
from hpotune.reporting.tables import trials_table
from hpotune.reporting.views.trial_view import trial_view
from tests.fixtures.report_rows import attempt, config, finished, printed

OBJECTIVES = config().score.objective


def shown(*rows: TrialRow) -> list[str]:
    return printed(trials_table([trial_view(OBJECTIVES, row) for row in rows]), width=160).splitlines()


def test_columns_appear_only_where_needed() -> None:
    assert "attempts" not in shown(finished(1))[0]
    paused = attempt("paused", cause="preempted", message="made room", seconds=60)
    row = finished(
        2,
        params={"params.x": 2},
        attempts=(paused, replace(paused, end=paused.start + 30, outcome="finished")),
        retry_of=1,
    )
    failed = TrialRow(
        number=3,
        kind="trial",
        state="failed",
        params={},
        failure=Failure(cause="oom", message="too big"),
        forgiven=True,
    )
    lines = shown(row, failed)
    assert " ".join(lines[0].split()) == "trial state acc params.x min attempts retry of cause why"
    assert lines[1].split() == ["2", "finished", "0.5", "±", "0.01", "2", "1.5", "2", "1"]
    assert lines[2].split() == ["3", "failed", "0", "oom", "too", "big", "(forgiven)"]


def test_standard_error_is_explained_below() -> None:
    assert shown(finished(1))[-1].strip() == "±: standard error"
    assert "standard error" not in "".join(shown(finished(1, stderr=None)))


def test_violated_limit_is_the_reason() -> None:
    assert "violates size=3 > 2" in shown(finished(1, breaks=("size=3 > 2",)))[1]
