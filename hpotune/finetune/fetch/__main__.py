"""`python -m hpotune.finetune.fetch list|download GIVEN.json WRITTEN.json`: its progress on standard output.

list: FetchSpec -> FetchList; only names, sizes and cards are asked for. download: FetchList -> FetchList, with the
hashes of all files. The exit code is 0 if the result is written, mistakes or not. Downloads go on where they were cut.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from hpotune.finetune.model import hub
from hpotune.records.fetch_record import FetchItem, FetchList, FetchProgress, FetchSpec
from hpotune.workspace.atomic_files import write_atomic

REPORT_EVERY_S = 1.0
Report = Callable[[FetchProgress], None]


def main(verb: str, given: Path, written: Path) -> None:
    """Do what the verb says and write the result."""
    hub.prepare_environment(offline=False)
    progress = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the libraries print too

    def report(line: FetchProgress) -> None:
        progress.write(line.model_dump_json() + "\n")
        progress.flush()

    threading.Thread(target=_end_with_parent, daemon=True).start()
    text = given.read_text(encoding="utf-8")
    if verb == "list":
        report(FetchProgress(step="list"))
        # Not earlier: transformers and datasets read their environment at import.
        from hpotune.finetune.fetch.needed_files import list_needed

        found = list_needed(FetchSpec.model_validate_json(text))
    else:
        found = _download(FetchList.model_validate_json(text), report)
    write_atomic(written, found.model_dump_json())


def _download(wanted: FetchList, report: Report) -> FetchList:
    """Fetch item after item; one that fails is a mistake, and the others are fetched all the same."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from hpotune.finetune.fetch.fetch_items import fetch_item, still_missing
    from hpotune.finetune.trial_errors import UserError

    disable_progress_bars()
    ended = threading.Event()
    counter = threading.Thread(target=_count, args=(wanted.items, report, ended), daemon=True)
    counter.start()
    items: list[FetchItem] = []
    mistakes: list[str] = []
    for item in wanted.items:
        try:
            items.append(fetch_item(item))
        except UserError as error:
            mistakes.append(str(error))
    ended.set()
    counter.join()
    left, _ = still_missing(wanted.items)
    return wanted.model_copy(update={"items": items, "mistakes": mistakes, "missing": left})


def _count(items: Sequence[FetchItem], report: Report, ended: threading.Event) -> None:
    """Report every second how many bytes are there."""
    from hpotune.finetune.fetch.fetch_items import still_missing

    total = sum(item.size for item in items)
    while not ended.wait(REPORT_EVERY_S):
        left, name = still_missing(items)
        report(
            FetchProgress(step="download" if name else "verify", name=name, done=total - left, total=total)
        )


def _end_with_parent() -> None:
    """End this process when its standard input is closed: the command that started it is gone."""
    while os.read(
        sys.stdin.fileno(), 4096
    ):  # not sys.stdin.read: its lock is fatal at the end of the interpreter
        pass
    hub.delete_private_cache()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
