"""Whether what `hpotune fetch` brought for a study is still there, and whether all of it was fetched.

Names and sizes are compared; contents only by `hpotune fetch` itself. Nothing is asked of the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpotune.config.load import Study
from hpotune.config.schema.study_config import PointConfig
from hpotune.records.fetch_record import FetchedLock, FetchItem
from hpotune.workspace.fetched_lock import S3, absent_files, hub_cache, read_lock

MOST_NAMED = 3
"""Files that a message names."""


def fetched_mistakes(study: Study, points: Sequence[PointConfig], lock: Path | None) -> list[str]:
    """A line for each address in S3 that was not fetched, and for each item of the lock file that is not whole.

    `lock`: the study's lock file; None: nothing was fetched. Each line starts with its key.
    Raises: DamagedFileError for a lock file that cannot be read.
    """
    fetched, named = read_lock(lock), _named(points)
    step = f"run `hpotune fetch {study.source.path}` on the login node"
    found = [
        f"{key}: {path} is not fetched; {step}"
        for key, path in named
        if path.startswith(S3) and (fetched is None or fetched.find("s3", path, None) is None)
    ]
    if fetched is None:
        return found
    hub = hub_cache({**os.environ, **study.config.env.vars})
    tasks = {task for point in points for task in _tasks(point)}
    for item in fetched.items:
        key = _key(item, named, tasks)
        absent = [f"{path} {wrong}" for path, wrong in absent_files(item, hub=hub)] if key else []
        if absent:
            more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
            found.append(f"{key}: {item.id}: {', '.join(absent[:MOST_NAMED])}{more}; {step}")
    return found


def _named(points: Sequence[PointConfig]) -> list[tuple[str, str]]:
    """Key and value of each path of the points that may be elsewhere."""
    found: dict[tuple[str, str], None] = {}
    for point in points:
        assert point.model is not None, "only fine-tuning reads models"
        found["model.path", point.model.path] = None
        for name, data in point.data.sources.items() if point.data is not None else ():
            found[f"data.mixture.{name}.path" if name else "data.path", data.path] = None
        if point.model.tokenizer is not None:
            found["model.tokenizer", point.model.tokenizer] = None
    return [*found]


def _tasks(point: PointConfig) -> Iterator[str]:
    score = point.score
    yield from (one.task for one in score.objective if one.task is not None)
    yield from (one.task for one in (*score.record, *score.test))


def _key(item: FetchItem, named: Sequence[tuple[str, str]], tasks: set[str]) -> str:
    """The first key for which the study still needs the item; empty if it does not."""
    for key in item.keys:
        name, _, task = key.partition(": ")
        if (name, item.id) in named or task in tasks:
            return key
    return ""


def lock_text(lock: FetchedLock) -> str:
    """What the lock file pins, for the hash of a rehearsal."""
    return " ".join(f"{one.name} {one.commit} {one.folder or ''}" for one in lock.items)
