"""The trials of a study as a table of pandas, which hpotune does not need otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from hpotune.errors import HpotuneError
from hpotune.reporting.views.trial_view import TrialView

if TYPE_CHECKING:
    import pandas

PLAIN = ("kind", "state", "attempts", "retry_of", "job", "host", "seconds", "gpu_hours")
"""Fields of a trial that are one value."""


def trial_frame(trials: Sequence[TrialView]) -> pandas.DataFrame:
    """One row a trial, by number: parameters and scores by their names, times in UTC, why it failed.

    A parameter with the name of another column is `params.NAME`, a score `values.NAME`.
    Raises: HpotuneError where pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise HpotuneError(
            "trials_frame: pandas is not installed; pip install pandas, or use Study.trials"
        ) from None
    rows = [_row(trial) for trial in trials]
    index = pandas.Index([trial.number for trial in trials], name="number")
    return pandas.DataFrame(rows, index=index)


def _row(trial: TrialView) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(trial, name) for name in PLAIN}
    row |= {
        "start": _time(trial.start),
        "end": _time(trial.end),
        "cause": trial.failure.cause if trial.failure else None,
        "message": trial.failure.message if trial.failure else None,
    }
    own = set(row)
    errors = {f"{name}_stderr": value for name, value in trial.stderrs.items()}
    scores = {**trial.values, **errors}
    row |= {
        f"params.{name}" if name in own | set(scores) else name: one for name, one in trial.params.items()
    }
    return row | {f"values.{name}" if name in own else name: one for name, one in scores.items()}


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=timezone.utc)
