"""Trials an hour of the whole pipeline beside the script that a user would write, and what they are made of.

    python scripts/bench/trials.py --data-root DATA [--parts abcde] [--full] [--against OTHER]
    python scripts/bench/trials.py --data-root DATA --parts a --trials 2 --sizes 200x400
    python scripts/bench/trials.py --data-root DATA --gpu                needs no network

(a) The same trials (model, rows in the same order, learning rates, items) by `hpotune run`, by one process of the
    script (scripts/bench/peers/), and by the script once a trial, as in a job array. Counted from the command to its
    end: imports, the rehearsal and the sanity checks of hpotune included. Also the seconds by phase of a warm trial.
(b) Trained tokens a second beside the Trainer (training.py). (c) Scored items a second beside lm-eval (scoring.py).
(d) How the trials of (a) grow: one trial a job, two ranks, rows of 1,000 to 2,000 characters instead of up to 500.
(e) The start of a job until its first step (start.py); OTHER is another checkout of hpotune to compare with.

Wall and CPU seconds of one thread: where other work runs, compare the CPU seconds, on a GPU the wall seconds. Ends with
exit code 1 where losses or scores of (a) are not equal. Without --full 4 trials of the smallest size, for 2 cores and
half an hour. --gpu: SmolLM2, and Llama 1B and 3B with random weights, whose scores mean nothing. DATA
($HPOTUNE_DATA_ROOT): datasets in the Hugging Face layout, databricks/databricks-dolly-15k, Rowan/hellaswag, cais/mmlu
and tatsu-lab/alpaca.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from random_llama import make_llama
from start import report as start_report
from study_files import LONGEST, LORA, SEED, SMOL, study_text, training_rows

from hpotune.finetune.data.batches import Batches
from hpotune.finetune.model.hub import model_folder

HERE = Path(__file__).parent
SCRIPT = HERE / "peers" / "finetune_script.py"
BATCH = 4
SIZES = ((8, 8), (48, 24), (200, 400))
"""Rows to train on and items to score: three sizes of trial."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is measured."""

    data_root: Path
    models: Sequence[str]
    trials: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    against: Path | None
    full: bool


def main() -> None:
    args = _arguments()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    with TemporaryDirectory() as folder:
        models = [model_folder(args.model)]  # a GGUF file is converted once, for all
        if args.gpu:
            models += [make_llama(Path(folder), size, tokenizer=args.model) for size in ("1b", "3b")]
        plan = Plan(
            data_root=args.data_root.resolve(), models=models, against=args.against, full=args.full or args.gpu,
            trials=args.trials or ([4, 16, 64] if args.full else [4]),
            sizes=args.sizes or (SIZES if args.full else SIZES[:1]),
        )  # fmt: skip
        equal = [PARTS[part](plan) for part in args.parts]
    sys.exit(0 if all(equal) else 1)


def _pipelines(plan: Plan) -> bool:
    """Part (a); returns whether all runs found the same."""
    equal = True
    for model in plan.models:
        for rows, items in plan.sizes:
            for trials in plan.trials:
                print(
                    f"(a) {Path(model).name}, {trials} trials, {rows} rows, HellaSwag-{items}; "
                    f"load {os.getloadavg()[0]:.1f}"
                )
                with TemporaryDirectory() as name:
                    runs = _all_runs(Path(name), model, plan.data_root, trials=trials, rows=rows, items=items)
                equal = _report(runs, trials) and equal
    return equal


def _tokens(plan: Plan) -> bool:
    """Part (b)."""
    size = ["--rows", "64", "--rounds", "3"] if plan.full else ["--rows", "16", "--rounds", "1"]
    return all(_other("(b)", "training.py", plan, "--model", model, *size) for model in plan.models)


def _items(plan: Plan) -> bool:
    """Part (c)."""
    size = ["--items", "100"] if plan.full else ["--items", "10", "--subjects", "1"]
    return all(_other("(c)", "scoring.py", plan, "--model", model, *size) for model in plan.models)


def _other(part: str, script: str, plan: Plan, *arguments: str) -> bool:
    command = [sys.executable, str(HERE / script), "--data-root", str(plan.data_root), *arguments]
    print(f"{part} {script} {' '.join(arguments)}", flush=True)
    return subprocess.run(command, check=False).returncode == 0


def _growth(plan: Plan) -> bool:
    """Part (d)."""
    trials, (rows, items) = plan.trials[0], plan.sizes[0]
    kinds: dict[str, dict[str, Any]] = {
        "as in (a)": {},
        "one trial a job": {"trials_per_job": 1},
        "two ranks": {"ranks": 2},
        "longer rows": {"length": (2 * LONGEST, 4 * LONGEST)},
    }
    for model in plan.models:
        for name, options in kinds.items():
            with TemporaryDirectory() as folder:
                run = _hpotune(
                    Path(folder),
                    model,
                    plan.data_root,
                    rates=_rates(trials),
                    rows=rows,
                    items=items,
                    **options,
                )
            print(
                f"(d) {Path(model).name}, {name}: {3600 * trials / run.wall_s:.0f} trials an hour, "
                f"{run.cpu_s / trials:.1f} s of CPU a trial, {run.phases}",
                flush=True,
            )
    return True


def _starts(plan: Plan) -> bool:
    """Part (e)."""
    for model in plan.models:
        lines = start_report(
            model=model, data_root=plan.data_root, rows=BATCH, items=8, jobs=3, against=plan.against
        )
        print("\n".join(f"(e) {Path(model).name}, {line}" for line in lines), flush=True)
    return True


PARTS: dict[str, Callable[[Plan], bool]] = {
    "a": _pipelines, "b": _tokens, "c": _items, "d": _growth, "e": _starts
}  # fmt: skip


def _rates(trials: int) -> list[float]:
    return [float(f"{one:.3g}") for one in np.geomspace(1e-5, 1e-3, trials)]


def _all_runs(folder: Path, model: str, data_root: Path, *, trials: int, rows: int, items: int) -> list[Run]:
    rates, chosen = _rates(trials), training_rows(data_root, rows)
    batches = Batches(rows=len(chosen), global_batch=BATCH, seed=SEED)
    loaded = np.random.default_rng(SEED).permutation(len(chosen))  # hpotune shuffles rows as it loads them
    order = [loaded[number] for step in range(batches.steps_per_epoch) for number in batches.rows_at(step)]
    settings = {
        "model": model, "rows": [chosen[number] for number in order], "rates": rates, "seed": SEED, "batch": BATCH,
        "lora": LORA, "task": "hellaswag", "items": items,
    }  # fmt: skip
    runs = [_hpotune(folder, model, data_root, rates=rates, rows=rows, items=items)]
    once = [["--trial", str(number)] for number in range(trials)]
    for name, calls in (("script, one process", [[]]), ("script, once a trial", once)):
        out = folder / name.replace(" ", "-")
        out.mkdir()
        (out / "settings.json").write_text(json.dumps(settings | {"out": str(out)}))
        # lm-eval's task finds a folder that is named as the dataset; the cache is private, as hpotune's is
        env = {"HF_DATASETS_CACHE": str(out / "cache")}
        commands = [[sys.executable, str(SCRIPT), str(out / "settings.json"), *more] for more in calls]
        wall_s, cpu_s = _timed(commands, cwd=data_root, env=env)
        results = [json.loads((out / f"{number}.json").read_text()) for number in range(trials)]
        found = {one["learning_rate"]: one for one in results}
        runs.append(Run(name=name, wall_s=wall_s, cpu_s=cpu_s, found=found, phases={}))
    return runs


def _hpotune(
    folder: Path,
    model: str,
    data_root: Path,
    *,
    rates: Sequence[float],
    rows: int,
    items: int,
    length: tuple[int, int] = (0, LONGEST),
    **options: int | str,
) -> Run:
    """`hpotune run`. `options`: of `study_text`."""
    chosen = training_rows(data_root, rows, length=length)
    text = study_text(
        folder,
        model=model,
        rows=chosen,
        items=items,
        data_root=data_root,
        rates=rates,
        batch=BATCH,
        **options,
    )
    (folder / "trials.yaml").write_text(text)
    command = [sys.executable, "-m", "hpotune", "run", str(folder / "trials.yaml")]
    wall_s, cpu_s = _timed([command], cwd=folder, env={})
    found, phases = _of_study(folder / "trials"), _phases(folder / "trials")
    return Run(name="hpotune", wall_s=wall_s, cpu_s=cpu_s, found=found, phases=phases)


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


def _report(runs: Sequence[Run], trials: int) -> bool:
    """Print the table; returns whether all runs found the same."""
    own = runs[0]
    for run in runs:
        apart, scores = _difference(own.found, run.found)
        print(
            f"  {run.name:22} wall {run.wall_s:7.1f} s, {3600 * trials / run.wall_s:.0f} trials an hour, "
            f"CPU {run.cpu_s:7.1f} s ({run.cpu_s / trials:.1f} a trial); "
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


def _size(text: str) -> tuple[int, int]:
    """`200x400`: rows to train on and items to score."""
    rows, _, items = text.partition("x")
    return int(rows), int(items)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = os.environ.get("HPOTUNE_DATA_ROOT")
    parser.add_argument("--data-root", type=Path, default=root, required=root is None)
    parser.add_argument("--model", default=SMOL)
    parser.add_argument("--parts", default="abcde", help="letters of the parts")
    parser.add_argument("--trials", type=int, nargs="+", help="of (a) [default: 4; with --full 4, 16 and 64]")
    parser.add_argument(
        "--sizes",
        type=_size,
        nargs="+",
        metavar="ROWSxITEMS",
        help="of (a) [default: 8x8; with --full three]",
    )
    parser.add_argument("--full", action="store_true", help="up to 64 trials, three sizes of trial; hours")
    parser.add_argument("--gpu", action="store_true", help="also Llama 1B and 3B with random weights")
    parser.add_argument("--against", type=Path, help="another checkout of hpotune, for (e)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
