#!/usr/bin/env python3
"""`hpotune report` on studies of 16 and 10,000 trials: seconds, CPU seconds and bytes of each format, as processes.

python scripts/bench/report.py [TRIALS ...]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from status import make

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("html", "md", "csv", "json")


def cpu_s() -> float:
    """CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(counts: list[int]) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    print("| trials | format | seconds | CPU seconds | MB |\n|---|---|---|---|---|")
    for trials in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = make(Path(name), f"sqlite:///{name}/store.db", trials).path
            for kind in FORMATS:
                file, before, started = Path(name) / f"report.{kind}", cpu_s(), time.perf_counter()
                command = [sys.executable, "-m", "hpotune", "report", str(folder), "-o", str(file)]
                subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
                seconds, megabytes = time.perf_counter() - started, file.stat().st_size / 1e6
                print(
                    f"| {trials:,} | {kind} | {seconds:.1f} | {cpu_s() - before:.1f} | {megabytes:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or [16, 10_000])
