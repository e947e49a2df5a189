"""Strikes a study on a real, throw-away Slurm cluster with faults and holds hpotune to its word: nothing is lost.

python scripts/chaos [--trials 200] [--faults 60] [--seed 0] [--minutes 25] [--store postgres] [--without squeue,sacct]
                     [--only garbage,planted] [--warm --parallel 4 --waste 4]

First the study runs undisturbed, then again under the faults; then trials, values, GPU-hours and the causes in the
store are compared. Needs root, Slurm and PostgreSQL: `scripts/slurm-cluster install`, `apt-get install postgresql`.
Exit codes: 0 all held, 1 something did not, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from check import Run, as_text, report
from fault import causes
from faults import KINDS, schedule
from study import Study, say, write_file
from testbed import Testbed, made


def main() -> int:
    """Runs calm and storm, prints the report."""
    options = parse()
    if os.geteuid() != 0:
        print("chaos: needs root for Slurm's daemons; run it with sudo", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is taken down
    until = time.monotonic() + options.minutes * 60
    without = [name for name in options.without.split(",") if name]
    with made(store=options.store, without=without) as testbed:
        say(f"the test bed is up: {testbed.folder}, {testbed.cluster.folder}")
        try:
            calm = run(testbed, "calm", options, [], until)
            spared = [] if options.store == "postgres" else ["postgres"]
            spared += [] if testbed.disk_is_small else ["disk_full"]
            spared += ["kill_rank", "bad_node"] if options.warm else []  # their trials are those of trial.py
            spared += [kind for kind in KINDS if options.only and kind not in options.only.split(",")]
            if (
                options.warm
            ):  # asked by its watchdog when the worker is gone, a trial writes a checkpoint and says so
                KINDS["kill_worker"] = replace(KINDS["kill_worker"], causes=causes("killed", "paused"))
            plan = schedule(options.faults, random.Random(options.seed), without=spared)
            storm = run(testbed, "storm", options, plan, until)
        finally:
            if options.keep:
                shutil.copytree(testbed.disk, options.keep, dirs_exist_ok=True)
                shutil.copytree(
                    testbed.cluster.folder / "log", Path(options.keep, "slurm"), dirs_exist_ok=True
                )
    result = report(calm, storm, trials=options.trials, faults=options.faults, waste=options.waste)
    if options.keep:
        Path(options.keep, "report.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1) if options.json else as_text(result))
    return 0 if result["ok"] else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=25, help="after so many in all the run is given up")
    parser.add_argument("--store", choices=["postgres", "sqlite", "journal"], default="postgres")
    parser.add_argument("--parallel", type=int, default=16, help="workers; the cluster has 16 GPUs")
    parser.add_argument(
        "--waste", type=float, default=1.3, help="GPU-hours allowed, times those of the calm run"
    )
    parser.add_argument(
        "--warm",
        action="store_true",
        help="trials train a tiny model, in processes that are kept for the next ones",
    )
    parser.add_argument("--trials-per-job", default="auto", help="auto, or a number")
    parser.add_argument(
        "--without", default="", help="commands hpotune must do without: squeue,sacct,scontrol"
    )
    parser.add_argument("--only", default="", help="kinds of faults, of " + ", ".join(KINDS))
    parser.add_argument(
        "--keep", help="a folder to which the studies, Slurm's logs and the report are copied"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args()


def run(testbed: Testbed, name: str, options: argparse.Namespace, plan: list[str], until: float) -> Run:
    """One run, ended."""
    began = time.monotonic()
    each = {"trials": options.trials, "parallel": options.parallel, "trials_per_job": options.trials_per_job}
    file = write_file(testbed, name, store=options.store, warm=options.warm, seed=options.seed, **each)
    left = max(0.1, (until - began) / 60)
    study = Study(
        testbed=testbed, file=file, trials=options.trials, minutes=left, seed=options.seed, plan=plan
    )
    study.run()
    wall_s = time.monotonic() - began
    say(f"{name}: {study.words or 'done'} after {wall_s:.0f} s")
    faults = sorted(study.ledger.faults, key=lambda fault: fault.at)
    return Run(
        rows=study.rows(), accounts=study.accounts(), faults=faults, wall_s=wall_s, submits=study.submits,
        resumes=study.resumes, repairs=study.repairs, submitted=study.submitted(), words=study.words,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
