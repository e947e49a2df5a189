#!/usr/bin/env python3
"""Run searches on surrogates of real fine-tuning sweeps and on synthetic shapes, and print regret by number of trials.

python scripts/bench/search.py run --algorithms auto,tpe,optuna_tpe --surfaces shared --seeds 20 --workers 1 --out FILE
python scripts/bench/search.py run --algorithms auto --surfaces siblings --mode portfolio --out FILE
python scripts/bench/search.py report --out FILE [--surfaces shared] [--workers 8] [--by-surface] [--accept NAME]
python scripts/bench/search.py report --out FILE --ratio auto --workers 8

Algorithms: those of `hpotune algorithms`, played through `hpotune ask-tell` (--fast: in this process), and peers
(optuna_tpe, optuna_gp, smac_hpo, ax, botorch_qlognei, syne_cqr, hebo, ...) where they can be imported. The results file
has one line per run; runs that it has are not repeated. A free worker asks at once and tells when its simulated run is
finished.

Regret is of the expected score at the best observed point: 0 at the best known score, 1 at the median of random points.
The target of a surface is the median regret of optuna_tpe at trial 50, one at a time.

Modes: plain; no-prior (no recommended setting); wrong-prior (it is mirrored at the centre of the cube);
portfolio (the three best trials of a study of 50 on the sibling surface come first).
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: several threads slow matrices of this size down

import numpy as np  # noqa: E402
from searchers import PEERS, Piped, RefusedError, Searcher, searcher, unavailable  # noqa: E402
from searchtable import accept, by_surface, loaded, ratios, table  # noqa: E402
from surfaces import SIBLING, Surface, clipped, mirrored, named, surface  # noqa: E402

MODES = ("plain", "no-prior", "wrong-prior", "portfolio")
SIBLING_SEED = 1000
"""Added to the seed of the sibling's study, so that the two share no random number."""
PORTFOLIO = 3


@dataclass
class Played:
    """One search, in the order in which its trials ended."""

    points: list[dict[str, Any]]
    observed: list[float | None]
    expected: list[float]
    order: list[int]
    ask_s: float
    """Of all asks: CPU seconds where they were answered in this process, wall seconds through a pipe."""
    slowest_s: float
    """Of one ask."""


def play(found: Surface, search: Searcher, *, seed: int, trials: int, workers: int) -> Played:
    """A study of so many trials, so many at a time."""
    clock = (
        time.perf_counter if isinstance(search, Piped) else time.process_time
    )  # CPU time does not depend on other processes
    ends: list[tuple[float, int, Any, dict[str, Any], float | None]] = []
    asks: list[float] = []
    results: list[tuple[int, dict[str, Any], float | None]] = []

    def start(now: float) -> None:
        begin = clock()
        name, point = search.ask()
        asks.append(clock() - begin)
        number = len(asks) - 1
        rng = np.random.default_rng([seed, number, 77])
        length = found.duration(point) * float(np.exp(0.05 * rng.standard_normal()))
        heapq.heappush(ends, (now + length, number, name, point, found.sample(point, rng)))

    for _ in range(min(workers, trials)):
        start(0.0)
    while ends:
        now, number, name, point, value = heapq.heappop(ends)
        search.tell(name, value)
        results.append((number, point, value))
        if len(asks) < trials:
            start(now)
    return Played(
        points=[point for _, point, _ in results],
        observed=[value for _, _, value in results],
        expected=[float(score) for score in found.true([point for _, point, _ in results])],
        order=[number for number, _, _ in results],
        ask_s=sum(asks),
        slowest_s=max(asks),
    )


def init(name: str, args: argparse.Namespace, *, seed: int, algorithm: str) -> dict[str, Any]:
    """The `init` message of a search on a surface."""
    found = surface(name)
    defaults = {"no-prior": {}, "wrong-prior": mirrored(name)}
    message: dict[str, Any] = {
        "space": found.space, "direction": "maximize", "seed": seed, "n_trials": args.trials, "workers": args.workers,
        "default": defaults.get(args.mode, dict(found.default)), "options": json.loads(args.options),
    }  # fmt: skip
    if args.mode == "portfolio":
        message["start_from"] = portfolio(name, args, seed=seed, algorithm=algorithm)
    return message


def portfolio(name: str, args: argparse.Namespace, *, seed: int, algorithm: str) -> list[dict[str, Any]]:
    """The best trials of an earlier study on the sibling surface."""
    sibling = surface(SIBLING[name])
    message = {
        "space": sibling.space, "direction": "maximize", "seed": seed + SIBLING_SEED, "n_trials": 50, "workers": 1,
        "default": dict(sibling.default),
    }  # fmt: skip
    search = searcher(algorithm, sibling, message, fast=args.fast)
    done = play(sibling, search, seed=seed + SIBLING_SEED, trials=50, workers=1)
    search.close()
    ranked = sorted(
        (value, -index) for index, value in enumerate(done.observed) if value is not None
    )  # of equal ones the earlier
    best = [done.points[-index] for _, index in ranked[::-1][:PORTFOLIO]]
    return [clipped(surface(name).space, point) for point in best]


def run(args: argparse.Namespace) -> None:
    """Run what the results file does not have yet."""
    known = {(r["algorithm"], r["surface"], r["seed"], r["workers"], r["mode"]) for r in loaded(args.out)}
    begin = time.monotonic()
    for algorithm in args.algorithms.split(","):
        reason = unavailable(algorithm)
        if args.mode != "plain" and algorithm in PEERS:
            reason = f"{args.mode}: a peer takes no prior here"
        if reason:
            print(f"skipped {algorithm}: {reason}", flush=True)
            continue
        for name in named(args.surfaces):
            played, since = 0, time.monotonic()
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                late = args.minutes and time.monotonic() - begin > 60 * args.minutes
                if late or (args.tag or algorithm, name, seed, args.workers, args.mode) in known:
                    continue
                try:
                    keep(args, algorithm, name, seed)
                except RefusedError as error:
                    print(f"skipped {algorithm} on {name}: {error}", flush=True)
                    break
                played += 1
            if played:
                each = (time.monotonic() - since) / played
                print(
                    f"{algorithm:16s} {name:10s} {args.mode} w{args.workers} {played} runs, {each:.2f} s each",
                    flush=True,
                )


def keep(args: argparse.Namespace, algorithm: str, name: str, seed: int) -> None:
    """Run one search, and append it to the results file."""
    search = searcher(
        algorithm, surface(name), init(name, args, seed=seed, algorithm=algorithm), fast=args.fast
    )
    try:
        done = play(surface(name), search, seed=seed, trials=args.trials, workers=args.workers)
    finally:
        search.close()
    row = {
        "algorithm": args.tag or algorithm, "surface": name, "seed": seed, "workers": args.workers, "mode": args.mode,
        "observed": [value if value is None else round(value, 6) for value in done.observed],
        "expected": [round(value, 6) for value in done.expected],
        "order": done.order, "ask_s": round(done.ask_s, 4), "slowest_s": round(done.slowest_s, 4),
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | ({"points": done.points} if args.points else {})) + "\n")


def report(args: argparse.Namespace) -> None:
    """The tables."""
    rows = loaded(args.out)
    algorithms = args.algorithms.split(",") if args.algorithms else None
    if args.accept:
        print(accept(rows, args.accept))
        return
    if args.ratio:
        print(ratios(rows, args.ratio, surfaces=named(args.surfaces), workers=args.workers, mode=args.mode))
        return
    shown = {
        "surfaces": named(args.surfaces),
        "algorithms": algorithms,
        "workers": args.workers,
        "mode": args.mode,
    }
    print(table(rows, **shown))
    if args.by_surface:
        print("\n" + by_surface(rows, **shown))


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["run", "report"])
    parser.add_argument("--out", type=Path, required=True, help="the results file, outside the checkout")
    parser.add_argument("--algorithms", default="", help="comma-separated; a report shows all without it")
    parser.add_argument("--surfaces", default="shared", help="shared, shapes, siblings, all, or names")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--mode", choices=MODES, default="plain")
    parser.add_argument("--options", default="{}", metavar="JSON", help="as `search.options` of a study file")
    parser.add_argument("--tag", default="", help="the name under which an algorithm is kept")
    parser.add_argument("--minutes", type=float, default=0, help="no run starts after so many; 0: no limit")
    parser.add_argument("--fast", action="store_true", help="ours in this process, not through a pipe")
    parser.add_argument("--points", action="store_true", help="keep the points too")
    parser.add_argument("--by-surface", action="store_true")
    parser.add_argument(
        "--accept", default="", metavar="NAME", help="NAME against the requirements of the default"
    )
    parser.add_argument(
        "--ratio",
        default="",
        metavar="NAME",
        help="trials to the target with --workers, against one, by seed",
    )
    return parser.parse_args()


if __name__ == "__main__":
    chosen = arguments()
    if chosen.verb == "run" and not chosen.algorithms:
        sys.exit("run needs --algorithms; `hpotune algorithms` lists ours, --help the peers")
    run(chosen) if chosen.verb == "run" else report(chosen)
