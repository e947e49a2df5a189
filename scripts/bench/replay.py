#!/usr/bin/env python3
"""The published study again: LHS, BO, SOO and BaMSOO, 50 trials each on its five ranges; figures and conclusions.

python scripts/bench/search.py run --algorithms lhs,gp,soo,bamsoo,random,auto --surfaces siblings --mode no-prior \\
    --points --seeds 20 --out FILE          # plays them on surrogates of the published trials
python scripts/bench/replay.py facts                 # what the published trials say of the slides' statements
python scripts/bench/replay.py table --out FILE      # the replay beside the base model
python scripts/bench/replay.py draw --out FILE       # docs/pictures/replay-*.svg, from seed 0
python scripts/bench/replay.py real --folder F [--trials 12] [--minutes 15]     # in small, for real, on this machine

`real` runs configs/replay.yaml (SmolLM2-135M, Alpaca, HellaSwag) once an algorithm, and tells what each found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import published
import yaml
from figures import COLOURS, Panel, Series, svg
from searchtable import Row, loaded
from surfaces import SIBLING, surface

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
STUDIED = ("lhs", "gp", "soo", "bamsoo")
SIZES = {"llama_3b": "3b", "llama_1b": "1b"}
PUBLISHED = {
    "llama_3b": {"lhs": "lhs", "gp": "bo", "soo": "soo"},
    "llama_1b": {"lhs": "lhs_bis", "gp": "bo_bis", "soo": "soo_bis", "bamsoo": "bamsoo_bis"},
}
"""Surface -> our algorithm -> the published run of it."""
LOGARITHMIC = ("lr", "wd")
SCORES = (0.2, 0.6)
TRIALS = 50
COLLAPSED = 0.3
"""Of HellaSwag, where chance is 0.25."""
Scored = list[tuple[dict[str, float], float]]


def replayed(rows: list[Row], name: str, algorithm: str, seed: int = 0) -> Scored:
    """Points and observed scores of a run, in the order of its trials."""
    for row in rows:
        if (row["surface"], row["algorithm"], row["seed"], row["workers"]) == (name, algorithm, seed, 1):
            if "points" not in row:
                raise SystemExit(
                    f"{algorithm} on {name} was played without --points; play it again into a new file"
                )
            return list(zip(row["points"], row["observed"], strict=True))
    raise SystemExit(f"{algorithm} was not played on {name} with seed {seed}; the command stands in --help")


def recorded(name: str, algorithm: str) -> Scored:
    """The same of a published run; empty where there is none."""
    run = PUBLISHED[name].get(algorithm)
    return [
        (dict(zip(published.VARIABLES, t.values, strict=True)), t.acc)
        for t in published.trials()
        if t.run == run
    ]


def ground(name: str) -> float:
    """The score of the base model."""
    return published.base_score(SIZES[name], lambda trial: trial.acc)


def position(variable: str, value: float) -> float:
    """Where a value stands on its axis."""
    return float(np.log10(value)) if variable in LOGARITHMIC else float(value)


def axis(name: str, variable: str) -> tuple[float, float]:
    """The ends of a variable's range."""
    entry = next(entry for entry in surface(name).space if entry["name"] == variable)
    return position(variable, entry["low"]), position(variable, entry["high"])


def evolution(runs: dict[tuple[str, str], Scored], title: str, note: str) -> str:
    """Score of each trial, and the best so far: a panel an algorithm, a row a model."""
    panels = []
    for (name, algorithm), run in runs.items():
        scores = [score for _, score in run]
        best = list(np.maximum.accumulate(scores)) if scores else []
        dots = Series(colour=COLOURS[algorithm], points=list(enumerate(scores)))
        line = Series(colour="#000000", points=list(enumerate(best)), steps=True)
        top = f", best {best[-1]:.4f}" if best else ": not published"
        panels.append(
            Panel(
                title=f"{SIZES[name].upper()} {algorithm}{top}", x=(0, TRIALS), y=SCORES, series=[dots, line],
                levels=[(ground(name), "base model")],
            )
        )  # fmt: skip
    return svg(panels, columns=len(STUDIED), title=title, note=note, legend=STUDIED)


def by_variable(rows: list[Row]) -> str:
    """Score by the value of each variable, all algorithms together: a row a model."""
    panels = []
    for name in SIBLING:
        runs = {algorithm: replayed(rows, name, algorithm) for algorithm in STUDIED}
        for variable in published.VARIABLES:
            series = [
                Series(
                    colour=COLOURS[a],
                    points=[(position(variable, point[variable]), score) for point, score in run],
                )
                for a, run in runs.items()
            ]
            title = f"{SIZES[name].upper()} {variable}"
            log = variable in LOGARITHMIC
            panels.append(Panel(title=title, x=axis(name, variable), y=SCORES, series=series, log=log))
    note = "HellaSwag accuracy of 50 trials an algorithm; the cliff lies on the learning rate alone"
    return svg(panels, columns=5, title="Score by variable", note=note, legend=STUDIED)


def over_trials(rows: list[Row]) -> str:
    """Each variable's value over the trials: a row an algorithm, a column a variable, of the 3B model."""
    panels = []
    for algorithm in STUDIED:
        run = replayed(rows, "llama_3b", algorithm)
        for variable in published.VARIABLES:
            points = [
                (float(index), position(variable, point[variable])) for index, (point, _) in enumerate(run)
            ]
            panels.append(
                Panel(
                    title=f"{algorithm}: {variable}", x=(0, TRIALS), y=axis("llama_3b", variable),
                    series=[Series(colour=COLOURS[algorithm], points=points)], log_y=variable in LOGARITHMIC,
                )
            )  # fmt: skip
    note = "where each algorithm looked, trial by trial (3B)"
    return svg(panels, columns=5, title="Variables over trials", note=note, legend=STUDIED)


def draw(rows: list[Row]) -> None:
    """Writes the figures."""
    cells = [(name, algorithm) for name in SIBLING for algorithm in STUDIED]
    again = {cell: replayed(rows, *cell) for cell in cells}
    first = {cell: recorded(*cell)[:TRIALS] for cell in cells}
    note = "HellaSwag accuracy of each trial, and the best so far"
    pictures = {
        "replay-scores.svg": evolution(
            again, "Score evolution, replayed", f"{note}; surrogates of the published trials"
        ),
        "replay-published.svg": evolution(
            first, "Score evolution, as published", f"{note}; the final ranges"
        ),
        "replay-variables.svg": by_variable(rows),
        "replay-trials.svg": over_trials(rows),
    }
    for file, text in pictures.items():
        (PICTURES / file).write_text(text, encoding="utf-8")
        print(f"wrote docs/pictures/{file} ({len(text) // 1024} KB)")


def compared_with_base_model(rows: list[Row]) -> str:
    """What each algorithm's choice after 50 trials is worth beside the base model."""
    lines = [
        "| after 50 trials | " + " | ".join(f"{SIZES[name].upper()} | beats it" for name in SIBLING) + " |"
    ]
    lines += ["|---" * (1 + 2 * len(SIBLING)) + "|"]
    base_rows = [f"{ground(name):.4f} | " for name in SIBLING]
    lines.append("| base model | " + " | ".join(base_rows) + " |")
    for algorithm in dict.fromkeys([*STUDIED, *(row["algorithm"] for row in rows)]):
        cells = []
        for name in SIBLING:
            ends = np.array(
                [chosen(row) for row in rows if (row["algorithm"], row["surface"]) == (algorithm, name)]
            )
            if len(ends):
                sure = ends > ground(name) + published.error(ground(name))
                cells.append(
                    f"{ends.mean():.4f} ± {ends.std(ddof=1) / len(ends) ** 0.5:.4f} | {sure.mean():.0%}"
                )
        if len(cells) == len(SIBLING):
            lines.append(f"| {algorithm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chosen(row: Row) -> float:
    """The expected score at the best observed point."""
    seen = [-np.inf if value is None else value for value in row["observed"]]
    return float(row["expected"][int(np.argmax(seen))])


def real(args: argparse.Namespace) -> None:
    """Runs the small study once an algorithm, each until its trials or its share of the time are spent."""
    file = ROOT / "configs" / "replay.yaml"
    args.folder.mkdir(parents=True, exist_ok=True)
    algorithms = args.algorithms.split(",")
    for algorithm in algorithms:
        values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        values["name"] = f"replay-{algorithm}"
        values["search"]["algorithm"] = algorithm
        values["budget"] |= {"trials": args.trials + 1, "wall_time": clock(args.minutes / len(algorithms))}
        study = args.folder / f"{algorithm}.yaml"
        study.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        since = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "hpotune",
            "run",
            str(study),
            "--folder",
            str(args.folder / algorithm),
        ]
        # one that ends with an error (too many failures) is reported by hpotune; the others still run
        subprocess.run([*command, *(["--data-root", args.data_root] if args.data_root else [])], check=False)
        print(f"{algorithm}: {time.monotonic() - since:.0f} s", flush=True)
    print(found(args))


def clock(minutes: float) -> str:
    """As Slurm writes times."""
    whole = round(minutes * 60)
    return f"{whole // 60}:{whole % 60:02d}"


def found(args: argparse.Namespace) -> str:
    """What each study says of its best trial, beside its baseline."""
    lines = [
        "| algorithm | trials | collapsed | best acc_norm | least held-out loss |",
        "|---|---|---|---|---|",
    ]
    base = ""
    for algorithm in args.algorithms.split(","):
        words = [sys.executable, "-m", "hpotune", "trials", str(args.folder / algorithm), "--json"]
        result = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        done = [
            (next(iter(r["values"].values())), r["metrics"], r["kind"])
            for r in result
            if r["state"] == "finished"
        ]
        tried = [(score, metrics["eval_loss"]) for score, metrics, kind in done if kind != "baseline"]
        fallen = sum(score < COLLAPSED for score, _ in tried)
        best = max((score for score, _ in tried), default=float("nan"))
        least = min((loss for _, loss in tried), default=float("nan"))
        lines.append(f"| {algorithm} | {len(tried)} | {fallen} | {best:.3f} | {least:.3f} |")
        base_rows = [(score, metrics["eval_loss"]) for score, metrics, kind in done if kind == "baseline"]
        base = "".join(f"| base model | 1 | | {score:.3f} | {loss:.3f} |" for score, loss in base_rows)
    return "\n".join([*lines[:2], base, *lines[2:]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["facts", "table", "draw", "real"])
    parser.add_argument("--out", type=Path, help="the results file of search.py")
    parser.add_argument("--folder", type=Path, help="of the small studies")
    parser.add_argument("--algorithms", default=",".join(STUDIED))
    parser.add_argument("--data-root", default="", help="as of `hpotune run`")
    parser.add_argument("--trials", type=int, default=12, help="an algorithm, beside the baseline")
    parser.add_argument("--minutes", type=float, default=15, help="for all algorithms together")
    args = parser.parse_args()
    if args.verb == "facts":
        print(published.facts(), published.conclusions(), published.cliff(), sep="\n\n")
    elif args.verb == "real":
        real(args) if args.folder else parser.error("real needs --folder")
    elif args.out is None:
        parser.error(f"{args.verb} needs --out")
    elif args.verb == "draw":
        draw(loaded(args.out))
    else:
        print(compared_with_base_model(loaded(args.out)))


if __name__ == "__main__":
    main()
