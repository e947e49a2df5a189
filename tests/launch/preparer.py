"""One of several processes that prepare a study at one moment: `python -m tests.launch.preparer [slow]`.

For each line of its input, a study file, it prints one line of JSON: what it got, or the error. A slow one says `at
the end` and waits for another line before it writes the last file of a new study.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from hpotune.errors import HpotuneError
from hpotune.launch import prepare as preparing
from hpotune.launch.prepare import prepare


def prepared(file: Path) -> dict:
    """What a study came to."""
    try:
        ready = prepare(file, chosen=None, data_root=None)
        return {"folder": str(ready.folder.path), "store": ready.store_url, "rows": len(ready.store.rows())}
    except HpotuneError as error:
        return {"error": str(error)}


def slowly(make: Callable[..., None]) -> Callable[..., None]:
    def made(*arguments: object, **named: object) -> None:
        print("at the end", flush=True)
        sys.stdin.readline()
        make(*arguments, **named)

    return made


def main() -> None:
    """Until the end of its input."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell that runs the tests behind it ignores SIGINT
    if "slow" in sys.argv:
        preparing.make_folder = slowly(preparing.make_folder)
    print("ready", flush=True)
    try:
        for line in iter(sys.stdin.readline, ""):
            print(json.dumps(prepared(Path(line.strip()))), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
