"""The rows of a study for looking only: what `Store.rows` gives, read by a handful of queries and without Optuna.

Optuna's own reading builds an object for every attribute of every trial: seconds at 10,000 trials, and its import
alone takes longer than all that is done here. Where anything is not as expected, the ordinary way is gone instead.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from hpotune.config.load import Study
from hpotune.config.yaml_source import Value
from hpotune.records.lineage import Lineage
from hpotune.records.trial import Failure, Outlook, TrialRow, Worker
from hpotune.storage.readers.journal_log import read_journal
from hpotune.storage.readers.sql_tables import Raw, RawStudy, Unreadable, read_postgres, read_sqlite
from hpotune.storage.trials import retries as told

Options = dict[str, dict[Value, Value]]
"""What each label of a choice stands for, by the choice's name."""
_STATES = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished", "PRUNED": "stopped"}


def rows_of(url: str, study: Study) -> list[TrialRow]:
    """Every trial by number, as `Store.rows` of the store opened for reading.

    Raises: StoreError where the store cannot be read, or has no such study.
    """
    try:
        with _without_collector():
            rows = _rows(_read(url, study.config.name), study)
    except (Unreadable, OSError, LookupError, ValueError, TypeError, ImportError):
        from hpotune.storage.trials.queue import Store

        return Store.open(url, study, read_only=True).rows()
    live = [row for row in rows if row.state != "failed"]
    surplus = {row.number for row in live[study.config.budget.trials :]}
    return [row for row in rows if not (row.state == "waiting" and row.number in surplus)]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Hundreds of thousands of objects are made and none is garbage: looking for some takes half of the time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.freeze()  # or the first search goes through all of them
            gc.enable()


def _rows(found: RawStudy, study: Study) -> list[TrialRow]:
    options: Options = {}
    for r in study.space.searched:
        if r.kind == "choice":
            options[r.name] = {}
            for label, option in zip(r.labels, r.options, strict=True):
                options[r.name].setdefault(label, option)
    return [_row(trial, options, forgiven=found.forgiven) for trial in found.trials]


def _read(url: str, name: str) -> RawStudy:
    scheme, _, path = url.partition(":///")
    if scheme == "sqlite":
        return read_sqlite(path, name)
    return read_journal(path, name) if scheme == "journal" else read_postgres(url, name)


def _row(trial: Raw, options: Options, *, forgiven: frozenset[int]) -> TrialRow:
    """As rows.row_of; tests hold them equal on every storage."""
    attrs = trial.attrs
    return TrialRow(
        number=trial.number,
        kind="baseline" if attrs.get("kind") == "baseline" else "trial",
        state=_STATES.get(trial.state, "failed"),  # type: ignore[arg-type]
        params={key: options[key][value] if key in options else value for key, value in trial.params.items()},
        values=tuple(trial.values),
        stderrs=tuple(attrs.get("stderrs", ())),
        metrics=attrs.get("metrics", {}),
        failure=Failure.model_validate(attrs["failure"]) if "failure" in attrs else None,
        worker=Worker(**attrs["worker"]) if attrs.get("worker") else None,
        start=trial.start,
        end=trial.end,
        beat=attrs.get("beat"),
        attempts=told.read(attrs),
        forgiven=trial.number in forgiven,
        retry_of=attrs.get("retry_of"),
        breaks=tuple(attrs.get("breaks", ())),
        rung=attrs.get("rung"),
        climbed=told.climbed(attrs),
        outlook=Outlook(**attrs["outlook"]) if "outlook" in attrs else None,
        lineage=Lineage(**attrs["lineage"]) if "lineage" in attrs else None,
    )
