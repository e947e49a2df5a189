"""Items of both kinds, of a hub and of S3: how much of them is on this machine, and their download."""

from __future__ import annotations

from collections.abc import Sequence

from hpotune.finetune.fetch.downloads import cached_path, fetch_hub_item, unfinished_path
from hpotune.finetune.fetch.s3_objects import fetch_s3_item
from hpotune.finetune.fetch.s3_objects import missing_bytes as missing_s3_bytes
from hpotune.records.fetch_record import FetchFile, FetchItem


def fetch_item(item: FetchItem) -> FetchItem:
    """Download what is missing of an item, verify all of it, and return it with the hashes of its files.

    Raises: UserError that starts with the key that needs it.
    """
    return fetch_s3_item(item) if item.kind == "s3" else fetch_hub_item(item)


def still_missing(items: Sequence[FetchItem]) -> tuple[int, str]:
    """Bytes that are not in the caches yet, and the first item that they are of; empty where all is there."""
    left = [(missing_bytes(item), item.id) for item in items]
    return sum(size for size, _ in left), next((name for size, name in left if size), "")


def missing_bytes(item: FetchItem) -> int:
    """Bytes of an item that are not in the cache yet; what an interrupted download has left counts as there.

    No content is read, and nothing is asked of the network.
    """
    if item.kind == "s3":
        return missing_s3_bytes(item)
    return sum(_missing(file, item) for file in item.files)


def _missing(file: FetchFile, item: FetchItem) -> int:
    """Bytes of a file of a hub."""
    if cached_path(file, item) is not None:
        return 0
    try:
        return max(0, file.size - unfinished_path(file, item).stat().st_size)
    except FileNotFoundError:
        return file.size
