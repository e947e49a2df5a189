#!/usr/bin/env python3
"""What `hpotune plan` says beside what then happens, for the three modes and for cold and warm jobs; prints a table.

python scripts/bench/plan.py [--trials 12] [--seconds 8] [--spread 0] [--parallel 4] [--folder F] [--only batch/1 ...]

Needs Slurm (eval "$(scripts/slurm-cluster start)"). The trials sleep for a known time, with --spread S from SECONDS - S
to SECONDS + S by their point. Each study is probed and planned, then submitted, one after another.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from hpotune.config.yaml_source import Value
from hpotune.planning.estimate import estimates
from hpotune.planning.measured_times import measured_times, submissions
from hpotune.planning.study_plan import simulate_study
from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder

WAYS = [(mode, size) for mode in ("sequential", "batch", "async") for size in ("1", "auto")]
WARMTH = {"1": "cold (1)", "auto": "warm (auto)"}
PATIENCE_S = 1800

STUDY = """\
name: {name}
command: 'sleep {{seconds}} && echo "{{{{\\"value\\": $HPOTUNE_PARAM_SECONDS}}}}"'
params: {{seconds: {{float: [{least}, {most}]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
search: {{algorithm: sobol}}
budget: {{trials: {trials}, parallel: {parallel}}}
execution: {{mode: {mode}, trials_per_job: {size}}}
resources: {{gpus: "a100:1", cpus: 1, time: "1:00:00", signal_delay_s: 30}}
"""


def hpotune(*words: object) -> dict[str, Value]:
    """What a verb prints with --json."""
    command = [sys.executable, "-m", "hpotune", *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Value] = json.loads(done.stdout)
    return result


def made(home: Path, args: argparse.Namespace, mode: str, size: str) -> Path:
    """A study file."""
    name = f"{mode}-{size}"
    file = home / f"{name}.yaml"
    spread = max(args.spread, 0.001)
    values = {"trials": args.trials, "parallel": args.parallel}
    values |= {"least": args.seconds - spread, "most": args.seconds + spread}
    file.write_text(STUDY.format(name=name, mode=mode, size=size, **values), encoding="utf-8")
    return file


def wait(folder: StudyFolder, trials: int) -> None:
    """Until all trials have finished and all workers have ended."""
    until = time.monotonic() + PATIENCE_S
    study = folder.load()
    store = TrialQueue.open(folder.provenance().store, study, read_only=True)
    while time.monotonic() < until:
        time.sleep(3)
        done = sum(row.state == "finished" for row in store.rows()) >= trials
        heartbeats = [beat for job in submissions(folder) for beat in job.heartbeats]
        if done and all(beat.end is not None for beat in heartbeats):
            time.sleep(8)  # the follow-up, so that it does not disturb the next study
            return
    raise SystemExit(f"{folder.path}: not done after {PATIENCE_S} s")


def learned(folder: StudyFolder) -> float:
    """The wall time that the figures of this very run give: what is wrong with the model, not with the figures."""
    study = folder.load()
    rows = TrialQueue.open(folder.provenance().store, study, read_only=True).rows()
    known = estimates(study.config, measured_times(folder, rows), {})
    return simulate_study(study.config, known.simulation_times, begin=datetime.now(), local=False).wall_s


def row(mode: str, size: str, planned: dict[str, Value], result: dict[str, Value], again_s: float) -> str:
    """A line of the table."""
    own, actual = next(way for way in planned["modes"] if way["own"]), result["actual"]
    off = own["wall_s"] / actual["wall_s"] - 1
    return (
        f"| {mode} | {WARMTH[size]} | {own['wall_s']:.0f} | {actual['wall_s']:.0f} | {off:+.0%} | "
        f"{again_s:.0f} ({again_s / actual['wall_s'] - 1:+.0%}) | {own['gpu_hours']:.3f} | {actual['gpu_hours']:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--spread", type=float, default=0)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="*", help="e.g. batch/1 async/auto")
    args = parser.parse_args()
    home = args.folder or Path(tempfile.mkdtemp(prefix="hpotune-bench-plan-"))
    home.mkdir(parents=True, exist_ok=True)
    print("| mode | jobs | planned s | actual s | off | by its own figures | planned GPU-h | actual GPU-h |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for mode, size in WAYS:
        if args.only and f"{mode}/{size}" not in args.only:
            continue
        file = made(home, args, mode, size)
        study_folder = StudyFolder(path=home / f"{mode}-{size}")
        planned = hpotune("plan", file, "--probe")
        hpotune("submit", file)
        wait(study_folder, args.trials)
        print(row(mode, size, planned, hpotune("plan", study_folder.path), learned(study_folder)), flush=True)
    print(f"studies lie in {home}", file=sys.stderr)


if __name__ == "__main__":
    main()
