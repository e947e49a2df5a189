"""What `hpotune fetch` shows: a row for each model and dataset, the sizes, and its JSON document."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.table import Table

from hpotune.records.fetch_record import FetchedLock, FetchList, FetchProgress
from hpotune.reporting.console import plain_table
from hpotune.reporting.progress.progress_line import Show

COLUMNS = ("kind", "id", "revision", "commit", "files", "size", "needed by")


def size_text(size: int) -> str:
    """A number of bytes with a unit."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} B"


def fetch_table(found: FetchList) -> Table:
    """What is needed, at which commit, and for what."""
    table = plain_table(COLUMNS, right=("files", "size"))
    for one in found.items:
        needs = ", ".join(one.keys[:3]) + (f" and {len(one.keys) - 3} more" if len(one.keys) > 3 else "")
        revision = one.revision or "main"
        table.add_row(
            one.kind, one.id, revision[:12], one.commit[:12], str(len(one.files)), size_text(one.size), needs
        )
    return table


def space_text(found: FetchList, free: Mapping[str, int]) -> str:
    """How much is missing, and where it will lie."""
    whole = sum(one.size for one in found.items)
    caches = "; ".join(f"{cache} ({size_text(left)} free)" for cache, left in free.items())
    if not found.items:
        return "nothing to download: the study names files on this machine only"
    return f"to download: {size_text(found.missing)} of {size_text(whole)} into {caches}"


def shown_on(line: Show) -> Callable[[FetchProgress], None]:
    """What shows the progress of a fetch on a line; without a terminal each step once."""
    return lambda found: line(_progress_text(found), step=f"fetch: {found.step}")


def shown_bytes(line: Show, step: str) -> Callable[[int, int], None]:
    """What shows how many bytes of all are done."""
    return lambda done, total: line(f"{step}: {size_text(done)} of {size_text(total)}", step=step)


def _progress_text(line: FetchProgress) -> str:
    """One line of progress."""
    if not line.total:
        return f"fetch: {line.step} {line.name}".rstrip()
    return f"fetch: {line.step} {size_text(line.done)} of {size_text(line.total)} {line.name}".rstrip()


def fetch_json(found: FetchList, lock: FetchedLock | None) -> dict[str, object]:
    """The keys of `hpotune fetch --json`: bytes that were downloaded, and the lock file; None: it was not written."""
    written = lock.model_dump(mode="json") if lock is not None else None
    return {"downloaded": found.missing, "warnings": found.warnings, "lock": written}
