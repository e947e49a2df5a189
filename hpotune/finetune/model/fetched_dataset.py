"""A dataset of `hpotune fetch` as a local folder: the files of the fetched commit, and a card that names no others.

Only the files of the configurations that a study reads are fetched. `datasets` looks for the files of the first
configuration of a card whichever one is asked for, so a card whose other files are missing is written anew, with links
to the files beside it.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hpotune.finetune.trial_errors import DatasetNotCached
from hpotune.records.fetch_record import FetchItem
from hpotune.workspace.fetched_lock import VARIABLE, absent_files, hub_cache, read_lock

CARD = "README.md"
FENCE = "---\n"


def fetched_folder(path: str, revision: str | None, *, cache: Path, env: Mapping[str, str]) -> str | None:
    """The folder of a dataset on the hub that was fetched for this study; None: it was not.

    `cache`: a folder of this process tree, for links.
    Raises: DatasetNotCached where one of its files is gone.
    """
    named = env.get(VARIABLE)
    lock = read_lock(Path(named)) if named else None
    item = lock.find("dataset", path, revision) if lock is not None else None
    if item is None:
        return None
    hub = hub_cache(env)
    if absent := next(absent_files(item, hub=hub), None):
        raise DatasetNotCached(
            f"{path}: {absent[0]} {absent[1]}; run `hpotune fetch STUDY` on the login node"
        )
    snapshot = hub / f"datasets--{path.replace('/', '--')}" / "snapshots" / item.commit
    return str(_with_own_card(item, snapshot, cache))


def _with_own_card(item: FetchItem, snapshot: Path, cache: Path) -> Path:
    """The snapshot, or a folder of links to it with a card of the configurations whose files are there."""
    card = snapshot / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    _, _, rest = text.partition(FENCE)
    head, fence, body = rest.partition(f"\n{FENCE}")
    about = yaml.safe_load(head) if text.startswith(FENCE) and fence else None
    if not isinstance(about, dict) or not isinstance(configs := about.get("configs"), list):
        return snapshot
    there = [one for one in configs if isinstance(one, dict) and _has_files(one, snapshot)]
    if len(there) == len(configs) or not there:
        return snapshot
    written = FENCE + yaml.safe_dump({**about, "configs": there}, allow_unicode=True) + FENCE + body
    key = hashlib.sha256(f"{snapshot}\0{written}".encode()).hexdigest()[:16]
    folder = cache / "fetched" / key / item.id.rpartition("/")[2]
    for file in item.files:
        link = folder / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        if file.path != CARD and not link.is_symlink():
            try:
                link.symlink_to(snapshot / file.path)
            except FileExistsError:
                continue  # another rank was faster
    _write(folder / CARD, written)
    return folder


def _has_files(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether each pattern of a configuration finds a file."""
    root = folder / str(config.get("data_dir") or "")
    return all(
        any(glob.iglob(str(root / one), recursive=True)) for one in _patterns(config.get("data_files"))
    )


def _patterns(value: object) -> Iterator[str]:
    """The patterns in `data_files`: one, a list, or a list of {split, path}."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _patterns(one.get("path") if isinstance(one, dict) else one)


def _write(file: Path, text: str) -> None:
    """Write the file whole; several ranks write the same."""
    if not file.exists():
        unfinished = file.with_name(f"{file.name}.{os.getpid()}")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
