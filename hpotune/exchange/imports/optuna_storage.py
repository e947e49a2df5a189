"""A study in an Optuna storage: every trial that has ended, and the space from their distributions. Writes nothing.

A file is copied first, since even reading may change an SQLite file; Optuna keeps JSON, and no pickle, in its storages.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from hpotune.config.yaml_source import Value
from hpotune.errors import StoreError, StudyFileError, nearest
from hpotune.exchange.imports.imported_study import (
    MOST_TRIALS,
    Direction,
    ImportedStudy,
    ImportedTrial,
    State,
    choice_range,
    number_range,
    study_name,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_STATES: dict[str, State] = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
_SQLITE = b"SQLite format 3\0"


def is_optuna(source: str) -> bool:
    """Whether a source is an Optuna storage: a URL, an SQLite file or a journal file."""
    if "://" in source:
        return True
    path = Path(source)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(64)
    return start.startswith((_SQLITE, b'{"op_code"'))


def import_optuna(source: str, *, study: str | None) -> ImportedStudy:
    """The study of a storage.

    Raises: StudyFileError where there is no such study, or several and none is chosen; StoreError for a storage that
    cannot be read.
    """
    with _opened(source) as storage:
        found = storage.get_all_studies()
        names = [one.study_name for one in found]
        if not names:
            raise StudyFileError(f"{source}: holds no study")
        if study is None and len(names) > 1:
            raise StudyFileError(
                f"{source}: holds {len(names)} studies; choose one with --study: {', '.join(names)}"
            )
        if study is not None and study not in names:
            raise StudyFileError(f"{source}: has no study {study!r}; {nearest(study, names)}")
        chosen = next(one for one in found if study in (None, one.study_name))
        trials = storage.get_all_trials(chosen._study_id, deepcopy=False)
        metrics = storage.get_study_system_attrs(chosen._study_id).get("study:metric_names")
        return _imported(chosen.study_name, trials, [d.name.lower() for d in chosen.directions], metrics)


@contextmanager
def _opened(source: str) -> Iterator[BaseStorage]:
    """The storage; of a file, a copy of it."""
    from hpotune.storage.backends.connect import connect

    scheme, separator, rest = source.partition(":///")
    if (separator and scheme not in ("sqlite", "journal")) or ("://" in source and not separator):
        if not source.startswith("postgresql://"):
            raise StudyFileError(
                f"{_without_password(source)}: is no storage that is read; needs sqlite:///FILE, journal:///FILE, "
                "postgresql://USER@HOST/DB, or copy the study with `optuna.copy_study`"
            )
        yield connect(source, read_only=True)
        return
    path = Path(rest if separator else source).expanduser()
    if not path.is_file():
        raise StudyFileError(f"{path}: is no file; needs an Optuna storage")
    with path.open("rb") as file:
        kind = "sqlite" if file.read(16).startswith(_SQLITE) else "journal"
    with tempfile.TemporaryDirectory(prefix="hpotune-import-") as folder:
        copy = Path(folder) / "copy"
        if kind == "sqlite":
            _copy_sqlite(path, copy)
        else:
            shutil.copyfile(path, copy)
        url = f"{kind}:///{copy}"
        try:
            yield connect(url, read_only=True)
        except StoreError as error:
            raise StoreError(str(error).replace(url, str(path))) from error


def _copy_sqlite(path: Path, copy: Path) -> None:
    """A consistent copy, also while others write."""
    try:
        with (
            closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise StudyFileError(f"{path}: cannot be read as SQLite ({error})") from None


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _imported(
    name: str, trials: Sequence[FrozenTrial], directions: Sequence[str], metrics: Sequence[str] | None
) -> ImportedStudy:
    notes: list[str] = []
    ended = [trial for trial in trials if trial.state.name in _STATES]
    if len(ended) < len(trials):
        notes.append(f"{len(trials) - len(ended)} trials have not ended, and are left out")
    if len(ended) > MOST_TRIALS:
        notes.append(f"{len(ended) - MOST_TRIALS} trials beyond the first {MOST_TRIALS:,} are left out")
    ended = ended[:MOST_TRIALS]
    names = (
        list(metrics)
        if metrics
        else ["value"]
        if len(directions) == 1
        else [f"value_{i}" for i in range(len(directions))]
    )
    return ImportedStudy(
        name=study_name(name),
        origin=f"Optuna study {name}",
        ranges=dict(_ranges(ended, notes)),
        objectives=tuple(
            (metric, cast(Direction, direction if direction in ("minimize", "maximize") else "minimize"))
            for metric, direction in zip(names, directions, strict=True)
        ),
        trials=tuple(_trial(trial) for trial in ended),
        notes=tuple(notes),
    )


def _trial(trial: FrozenTrial) -> ImportedTrial:
    raced = "race" in trial.user_attrs  # of hpotune: its score is an estimate
    values = trial.values if trial.state.name == "COMPLETE" and trial.values and not raced else ()
    return ImportedTrial(
        number=trial.number,
        state="pruned" if raced else _STATES[trial.state.name],
        params=dict(trial.params),
        values=tuple(values) if all(math.isfinite(value) for value in values) else (),
    )


def _ranges(trials: Sequence[FrozenTrial], notes: list[str]) -> Iterator[tuple[str, Value]]:
    """The range of each parameter: the union of its distributions, with a condition where its presence follows one."""
    found: dict[str, list[BaseDistribution]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            known = found.setdefault(name, [])
            if distribution not in known:
                known.append(distribution)
    for name, distributions in found.items():
        if len(distributions) > 1:
            notes.append(
                f"{name}: had {len(distributions)} distributions, of which the widest range is written"
            )
        value = _union(distributions)
        condition = _condition(name, trials, found)
        if condition is not None and isinstance(value, dict):
            value["when"] = condition
        elif condition is None and any(name not in trial.params for trial in trials if trial.params):
            notes.append(
                f"{name}: is missing in some trials, and no choice says in which; it is always searched"
            )
        yield name, value


def _union(distributions: Sequence[BaseDistribution]) -> Value:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    first = distributions[0]
    if isinstance(first, CategoricalDistribution) or any(
        type(one) is not type(first) for one in distributions
    ):
        return choice_range(
            [
                option
                for one in distributions
                for option in getattr(one, "choices", (getattr(one, "low", None),))
            ]
        )
    low = min(one.low for one in distributions)  # type: ignore[attr-defined]
    high = max(one.high for one in distributions)  # type: ignore[attr-defined]
    steps = {one.step for one in distributions}  # type: ignore[attr-defined]
    logs = {one.log for one in distributions}  # type: ignore[attr-defined]
    kind: Literal["float", "int"] = "int" if isinstance(first, IntDistribution) else "float"
    return number_range(
        kind, low, high, log=logs == {True}, step=steps.pop() if len(steps) == 1 and logs == {False} else None
    )


def _condition(
    name: str, trials: Sequence[FrozenTrial], found: dict[str, list[BaseDistribution]]
) -> dict[str, Value] | None:
    """The choice that says in which trials a parameter exists, as `when`; None where it always does, or none says."""
    from optuna.distributions import CategoricalDistribution

    used = [trial for trial in trials if trial.params]
    if all(name in trial.params for trial in used):
        return None
    for other, distributions in found.items():
        if other == name or not all(isinstance(one, CategoricalDistribution) for one in distributions):
            continue
        having = {repr(t.params.get(other)): t.params.get(other) for t in used if name in t.params}
        lacking = {repr(t.params.get(other)) for t in used if name not in t.params}
        if "None" not in having and not having.keys() & lacking:
            return {other: list(having.values()) if len(having) > 1 else next(iter(having.values()))}
    return None
