#!/usr/bin/env python3
"""What a trial costs in the store as a study grows, beside plain Optuna; and races of many workers for one budget.

python scripts/bench/store.py grow [--sizes 100 1000 10000] [--runs 40] [--only sqlite postgres] [--sampler tpe]
python scripts/bench/store.py race [--repeat 20] [--only postgres-64 postgres-200 journal-50 sqlite-16]

Prints tables. PostgreSQL where its programs are installed (apt-get install postgresql).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import grown
import optuna

from hpotune.config.load import Study, load_study
from hpotune.records.trial import TrialResult, Worker
from hpotune.schedule.failures import bad_nodes
from hpotune.schedule.job_fit import fits
from hpotune.schedule.retention import AdapterRows, adapters_to_delete
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.storage import Claim, TrialQueue
from hpotune.storage.backends.connect import connect
from tests.storage.trials.worker_race import Fates, race

KINDS = ("sqlite", "journal", "postgres")
WARM_UP = 3
"""Trials that are not counted: the first reads all others."""
FILE = """name: many
python: own.py:f
params:
  learning_rate: {{float: [1.0e-6, 1.0e-2], log: true}}
  dropout: {{float: [0.0, 0.5]}}
  r: {{int: [2, 256], log: true}}
  alpha: {{int: [2, 512]}}
  optimizer: {{choice: [adamw, sgd, lion]}}
  targets: {{choice: [[q_proj, v_proj], all-linear]}}
score: {{objective: {{metric: acc, direction: maximize}}}}
budget: {{trials: {trials}, parallel: 16, max_failed: 1000, max_equal_failures: 1000}}
search: {{algorithm: {sampler}}}
resources: {{gpus: 4}}
"""


def make_study(base: Path, *, trials: int, sampler: str = "random") -> Study:
    """A study of six parameters."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "own.py").write_text("def f(**point):\n    return {'acc': 0.5}\n")
    (base / "study.yaml").write_text(FILE.format(trials=trials, sampler=sampler))
    return load_study(base / "study.yaml")


def by_hpotune(store: TrialQueue, me: Worker, gone: set[int], adapters: AdapterRows) -> dict[str, float]:
    """Seconds of what hpotune/worker/ asks of the store and makes of its rows, for one trial.

    `gone`: trials whose adapters were dropped before.
    """
    started = time.perf_counter()
    rows = store.rows()
    left = adapters.left(rows, gone)
    gone.update(adapters_to_delete(store.config.score.objective, left, None, keep=3))
    assert stop_reason(store.config, rows, now=datetime.now()) is None
    assert me.host not in bad_nodes(rows)
    looked = time.perf_counter()
    claim = store.claim(me, fits=partial(fits, store.config, rows, left_s=40_000.0))
    assert isinstance(claim, Claim)
    claimed = time.perf_counter()
    metrics = {f"metric_{n}": 0.5 for n in range(12)}
    result = TrialResult(
        number=claim.row.number, state="finished", values=[0.5], stderrs=[0.01], metrics=metrics
    )
    assert store.complete(claim.trial_id, result)
    return {"look": looked - started, "claim": claimed - looked, "tell": time.perf_counter() - claimed}


def by_optuna(study: optuna.Study) -> dict[str, float]:
    """Seconds of ask, suggest, three notes, tell."""
    started = time.perf_counter()
    trial = study.ask()
    for name, distribution in grown.SPACE.items():
        trial._suggest(name, distribution)
    asked = time.perf_counter()
    for key, value in grown.plain(trial.number, grown.random.Random(0)).items():
        trial.set_user_attr(key, value)
    study.tell(trial, 0.5)
    return {"ask": asked - started, "tell": time.perf_counter() - asked}


def sampler_of(name: str) -> optuna.samplers.BaseSampler:
    """As hpotune makes it, seed apart."""
    if name == "tpe":
        return optuna.samplers.TPESampler(multivariate=True, constant_liar=True)
    return optuna.samplers.RandomSampler()


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


Urls = Callable[[str], str]
"""Of a new, empty storage by name."""


def measure(urls: Urls, base: Path, *, trials: int, runs: int, sampler: str) -> tuple[dict[str, float], ...]:
    """Seconds of ours and of plain Optuna's: `trial` (median), `mean`, the parts (medians), `cold` (the first)."""
    study = make_study(base / "home", trials=trials + 100_000, sampler=sampler)
    one, other = urls(f"ours_{trials}"), urls(f"plain_{trials}")
    for url, name, attrs in ((one, "many", grown.ours), (other, "plain", grown.plain)):
        grown.grow(url, connect(url), name, trials, attrs)
    me = Worker(job="1_1", host=socket.gethostname(), pid=os.getpid())
    TrialQueue.create(one, study, folder=str(base))
    store = TrialQueue.open(one, study, patient=True)
    theirs = optuna.load_study(
        study_name="plain", storage=grown.plain_storage(other), sampler=sampler_of(sampler)
    )
    cold = timed(store.rows), timed(lambda: theirs.get_trials(deepcopy=False))
    kept: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    gone: set[int] = set()
    adapters = AdapterRows()
    for index in range(runs + WARM_UP):
        found = counted(lambda: by_hpotune(store, me, gone, adapters)), counted(lambda: by_optuna(theirs))
        if index >= WARM_UP:
            kept[0].append(found[0])
            kept[1].append(found[1])
    return summed(kept[0], cold[0]), summed(kept[1], cold[1])


def counted(call: Callable[[], dict[str, float]]) -> dict[str, float]:
    """With the CPU seconds of this process."""
    started = time.process_time()
    return {**call(), "cpu": time.process_time() - started}


def summed(runs: Sequence[dict[str, float]], cold: float) -> dict[str, float]:
    """Medians of the parts; of the whole the median and the mean, which counts the rows made ahead."""
    whole = [sum(run.values()) - run["cpu"] for run in runs]
    parts = {name: statistics.median([run[name] for run in runs]) for name in runs[0]}
    return {"trial": statistics.median(whole), "mean": statistics.fmean(whole), **parts, "cold": cold}


def grow(args: argparse.Namespace, scratch: Path) -> None:
    print(f"sampler {args.sampler}, {args.runs} trials each, medians, ms; {os.cpu_count()} cores\n")
    print("| store | trials | hpotune | mean | CPU | look + claim + tell | first look | ", end="")
    print("Optuna | mean | CPU | ask + tell | first look | ratio | load |")
    print("|---" * 14 + "|", flush=True)
    with grown.servers() as server:
        for kind in args.only or KINDS:
            measured = {}
            database = server().database if kind == "postgres" else None
            for size in args.sizes:
                base = scratch / kind / str(size)
                base.mkdir(parents=True)
                urls = database or (lambda name, kind=kind, base=base: f"{kind}:///{base / name}")
                found = measure(urls, base, trials=size, runs=args.runs, sampler=args.sampler)
                measured[size] = found
                print(line(kind, size, *found), flush=True)
            print(growth(kind, measured), flush=True)


def line(kind: str, size: int, ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """One row of the table."""

    def ms(of: Mapping[str, float], *names: str) -> str:
        return " + ".join(f"{of[name] * 1000:.1f}" for name in names)

    cells = [kind, str(size)]
    cells += [ms(ours, name) for name in ("trial", "mean", "cpu")]
    cells += [ms(ours, "look", "claim", "tell"), ms(ours, "cold")]
    cells += [ms(theirs, name) for name in ("trial", "mean", "cpu")]
    cells += [ms(theirs, "ask", "tell"), ms(theirs, "cold")]
    cells += [f"{ours['trial'] / theirs['trial']:.2f}", f"{os.getloadavg()[0]:.1f}"]
    return f"| {' | '.join(cells)} |"


def growth(kind: str, measured: Mapping[int, tuple[dict[str, float], ...]]) -> str:
    """How many times the most trials cost what the least do."""
    least, most = min(measured), max(measured)
    ours, theirs = (
        [f"{measured[most][who][of] / measured[least][who][of]:.2f}" for of in ("trial", "mean", "cpu")]
        for who in (0, 1)
    )
    return f"| {kind} | {most} : {least} | {' | '.join(ours)} | | | {' | '.join(theirs)} | | | | |"


RACES = {"postgres-64": 100, "postgres-200": 300, "journal-50": 100, "sqlite-16": 60}
"""Racers on a store, and the trials that they race for."""
STRUCK = {
    kind: Fates(failed=0.05, paused=0.1, killed=0.3, kill_s=seconds)
    for kind, seconds in (("postgres", 8), ("journal", 1.5), ("sqlite", 1.5))
}


def races(args: argparse.Namespace, scratch: Path) -> None:
    print(
        "| racers | store | what happens | races | budget | finished, each race | faults | killed | s a race | load |"
    )
    print("|---" * 10 + "|", flush=True)
    with grown.servers() as server:
        database = server().database
        for name in args.only or RACES:
            for fates in (Fates(), STRUCK[name.partition("-")[0]]):
                times = args.repeat if name == "postgres-64" and not fates.killed else args.struck
                print(raced(name, database, scratch, fates=fates, times=times), flush=True)


def raced(name: str, database: Urls, scratch: Path, *, fates: Fates, times: int) -> str:
    """A line of the table."""
    kind, racers, trials = name.partition("-")[0], int(name.partition("-")[2]), RACES[name]
    found = []
    for index in range(times):
        own = f"{kind}_{racers}_{index}_{bool(fates.killed):d}"
        base = scratch / own
        study = make_study(base / "home", trials=trials)
        url = database(own) if kind == "postgres" else f"{kind}:///{base / 'store'}"
        TrialQueue.create(url, study, folder=str(base))
        found.append(race(url, study, base / "records", racers=racers, fates=fates))
    finished = {sum(row.state == "finished" for row in one.rows) for one in found}
    faults = [fault for one in found for fault in one.faults(trials)]
    what = "5 % fail, 10 % pause, 30 % get kill -9" if fates.killed else "all finish"
    return (
        f"| {racers} | {kind} | {what} | {times} | {trials} | {', '.join(map(str, sorted(finished)))} | "
        f"{'; '.join(faults) or 'none'} | {sum(one.killed for one in found)} | "
        f"{statistics.median(one.seconds for one in found):.1f} | {os.getloadavg()[0]:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    growing = verbs.add_parser("grow")
    growing.add_argument("--sizes", type=int, nargs="*", default=[100, 1000, 10_000])
    growing.add_argument("--runs", type=int, default=40)
    growing.add_argument("--only", nargs="*", choices=KINDS)
    growing.add_argument("--sampler", choices=["random", "tpe"], default="random")
    growing.set_defaults(run=grow)
    racing = verbs.add_parser("race")
    racing.add_argument(
        "--repeat", type=int, default=20, help="races of 64 on PostgreSQL in which all finish"
    )
    racing.add_argument("--struck", type=int, default=1, help="races of every other kind")
    racing.add_argument("--only", nargs="*", choices=list(RACES))
    racing.set_defaults(run=races)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpotune-bench-") as scratch:
        args.run(args, Path(scratch))


if __name__ == "__main__":
    main()
