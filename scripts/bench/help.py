#!/usr/bin/env python3
"""`hpotune --help` beside a bare interpreter and the import of typer: median of paired runs, printed as a ratio.

python scripts/bench/help.py [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CASES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import typer'": [sys.executable, "-c", "import typer"],
    "hpotune --help": [sys.executable, "-m", "hpotune", "--help"],
}


def main(runs: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for index in range(runs + 1):  # the first warms the file cache and is not counted
        for name, command in CASES.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if index:
                seconds[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in middle.items():
        print(f"{name:<26} {value * 1000:7.1f} ms")
    _, typer, ours = middle.values()
    # `import typer` includes a bare interpreter once already: pass + import of typer = typer's whole run
    print(f"hpotune --help / (python -c pass + import typer) = {ours / typer:.2f} ({runs} runs, median)")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
