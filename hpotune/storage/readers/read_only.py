"""The rows of a study, read without Optuna by a few queries: what `TrialQueue.rows` returns. Writes nothing.

Optuna makes an object of every attribute of every trial: seconds at 10,000 trials, and its import alone takes longer
than everything here. Where a storage is not as expected, Optuna reads it instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpotune.config.load import Study
from hpotune.errors import StoreError
from hpotune.records.trial import TrialRow
from hpotune.storage.readers.journal_log import read_journal
from hpotune.storage.readers.sql_tables import (
    NoSuchStudy,
    StudyRecord,
    Unreadable,
    read_postgres,
    read_sqlite,
    without_collector,
)
from hpotune.storage.readers.trial_record import choice_options, row_of

_FAILED = (
    Unreadable,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
    ImportError,
)


def rows_of(url: str, study: Study, *, through_optuna: bool = True) -> list[TrialRow]:
    """Every trial, by number, as `TrialQueue.rows` of the study opened for reading.

    `through_optuna=False`: Optuna is not asked where the storage is not as expected; a page of many studies needs it
    fast, and Optuna may wait for a damaged one.
    Raises: StoreError where the storage cannot be read, or has no such study.
    """
    try:
        with without_collector():
            options, found = choice_options(study.space), _read(url, study.config.name)
            rows = [row_of(trial, options, forgiven=trial.number in found.forgiven) for trial in found.trials]
    except _FAILED as error:
        if not through_optuna:
            raise StoreError(
                f"{url}: cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
            ) from error
        from hpotune.storage.trials.queue import TrialQueue

        queue = TrialQueue.open(url, study, read_only=True)
        try:
            return queue.rows()
        except _FAILED as error:
            raise StoreError(
                f"{url}: holds values of trials that hpotune cannot read ({type(error).__name__}: {error}); restore "
                "the store from a backup, or name another one"
            ) from error
    not_failed = [row for row in rows if row.state != "failed"]
    surplus = {row.number for row in not_failed[study.config.budget.trials :]}
    return [row for row in rows if not (row.state == "waiting" and row.number in surplus)]


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierTrials:
    """Trials that a store holds of a study before its folder is made: the folder was removed, or is another one."""

    finished: int
    started: int
    """Finished, failed and running ones."""
    first: float
    """When the first one started, in Unix seconds."""
    folder: str | None
    """The folder that they were run for."""


def earlier_trials(url: str, name: str) -> EarlierTrials | None:
    """The trials of the study of this name that have started; None where there are none, or no such store or study.

    Raises: StoreError where the storage cannot be reached or read: it may hold trials.
    """
    from hpotune.storage.backends.store_file import is_missing

    if is_missing(url):
        return None
    try:
        found = _read(url, name)
    except NoSuchStudy:
        return None
    except _FAILED:
        read = _read_through_optuna(url, name)
        if read is None:
            return None
        found = read
    started = [trial for trial in found.trials if trial.state != "WAITING" or "attempts" in trial.attrs]
    if not started:
        return None
    return EarlierTrials(
        finished=sum(trial.state in ("COMPLETE", "PRUNED") for trial in started),
        started=len(started),
        first=min((trial.start for trial in started if trial.start is not None), default=0.0),
        folder=found.folder,
    )


def _read_through_optuna(url: str, name: str) -> StudyRecord | None:
    """The same study, slowly; None where there is none of this name. Raises: StoreError."""
    from hpotune.storage.backends.connect import connect
    from hpotune.storage.trials.study_trials import record_of

    storage = connect(url, read_only=True)
    try:
        study = storage.get_study_id_from_name(name)
        trials = [record_of(trial) for trial in storage.get_all_trials(study, deepcopy=False)]
        folder = storage.get_study_user_attrs(study).get("folder")
    except KeyError:
        return None
    except _FAILED as error:
        raise StoreError(
            f"{url}: holds values of trials that hpotune cannot read ({type(error).__name__}: {error}); restore the "
            "store from a backup, or name another one"
        ) from error
    return StudyRecord(trials=trials, forgiven=frozenset(), folder=folder)


def _read(url: str, name: str) -> StudyRecord:
    scheme, _, path = url.partition(":///")
    if scheme == "sqlite":
        return read_sqlite(path, name)
    return read_journal(path, name) if scheme == "journal" else read_postgres(url, name)
