"""The lengths of a study's training rows, kept by the rehearsal that tokenized them: what a memory estimate needs.

Kept under $HPOTUNE_CACHE by the sections `model` and `data` and the files that they name, so that neither `train`,
`lora` nor `resources` has an effect on them. Without them the rows are taken to be as long as data.max_length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.config.lm_eval_tasks import cache_folder
from hpotune.config.load import Study
from hpotune.config.memory.point_memory import RowLengths, longest_rows
from hpotune.config.ownership import check_cache
from hpotune.config.schema.study_config import PointConfig
from hpotune.records.rehearsal_record import RehearsalResult
from hpotune.workspace.atomic_files import write_atomic


def file_facts(path: Path) -> Iterator[tuple[str, int, int]]:
    """(path, bytes, time of the last change in ns) of a file, or of all files in a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            facts = file.stat()
            yield str(file), facts.st_size, facts.st_mtime_ns


def keep_lengths(study: Study, result: RehearsalResult) -> None:
    """Keep the lengths of a rehearsal where they are known."""
    if not result.longest:
        return
    file = _file(study)
    check_cache(cache_folder(), file.parent, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({"longest": result.longest, "counted": result.counted}))
    except OSError:
        return  # without them, the next estimate takes data.max_length


def row_lengths(study: Study) -> Callable[[PointConfig], RowLengths]:
    """Point -> the lengths of its training rows: of a rehearsal, or at most data.max_length."""
    found = optional_object(_file(study))
    if found is None:
        return longest_rows
    try:
        known = RowLengths(
            longest=int(found["longest"]),
            counted=tuple(int(number) for number in found["counted"]),
            source="the rehearsal's rows",
        )
    except (KeyError, TypeError, ValueError):
        return longest_rows
    return lambda _: known


def _file(study: Study) -> Path:
    """Where the lengths of a study with these rows are kept."""
    root = study.config.data_root
    data, model = study.config.data, study.config.model
    assert data is not None, "only fine-tuning has rows"
    assert model is not None, "only fine-tuning has rows"
    paths = [one.path for one in data.sources.values()]
    names = [*paths, model.path, *([] if root is None else [str(Path(root) / path) for path in paths])]
    facts = {
        "sections": {key: study.template.get(key) for key in ("model", "data", "data_root")},
        "files": [fact for name in names for fact in file_facts(Path(name))],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return cache_folder() / "lengths" / f"{digest}.json"
