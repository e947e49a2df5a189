#!/usr/bin/env python3
"""The memory and the time in which a trial gets its rows, with data.streaming and without it, at two numbers of rows.

python scripts/bench/streaming.py [--rows 20000,200000] [--form parquet|jsonl] [--words 60] [--model MODEL]

Each line is a process of its own: rows of random words are read, tokenized and hashed as a trial does it, and 50
batches of 64 rows are drawn. `again` is a second process, as later trials of the study: with streaming it finds the
file of tokens, without it the file that a rehearsal has left (`hpotune.finetune.data.prepared_rows`). Peak: VmHWM of
/proc/self/status, which includes about 0.45 GB of libraries. MODEL: a folder or package with a tokenizer; a small one
of the tests by default.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
BATCHES, BATCH = 50, 64
WORDS = [
    "whale",
    "coral",
    "harbour",
    "drum",
    "violin",
    "oven",
    "pepper",
    "flour",
    "comet",
    "orbit",
    "with",
    "the",
    "a",
]
BLOCK = 5_000


def texts(count: int, words: int) -> Iterator[dict[str, str]]:
    """Rows of about as many words, the same for a number of rows."""
    rng = random.Random(count)
    for number in range(count):
        length = rng.randint(words // 2, 3 * words // 2)
        yield {"input": f"{number}: " + " ".join(rng.choices(WORDS, k=length)), "output": rng.choice(WORDS)}


def write_rows(file: Path, count: int, words: int) -> None:
    """The file, written a block at a time."""
    rows = texts(count, words)
    if file.suffix == ".jsonl":
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        return
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([("input", "string"), ("output", "string")])
    with parquet.ParquetWriter(file, schema) as writer:
        for first in range(0, count, BLOCK):
            block = [next(rows) for _ in range(min(BLOCK, count - first))]
            writer.write_table(pyarrow.Table.from_pylist(block, schema=schema))


def one_trial(model: str, file: Path, prepared: Path, *, streaming: bool) -> None:
    """What a trial does with its rows before its model is loaded; prints the measurements."""
    from hpotune.finetune.model.hub import prepare_environment

    prepare_environment(offline=True)
    from hpotune.config.schema.study_config import DataConfig, ModelConfig
    from hpotune.finetune.data.batches import Batches
    from hpotune.finetune.data.prepared_rows import write_prepared
    from hpotune.finetune.inputs import load_inputs
    from hpotune.finetune.provenance_record import rows_hash

    libraries, started = peak_mb(), (time.monotonic(), time.process_time())
    data = DataConfig(
        path=str(file), prompt="{input} ", response="{output}", validation=0.01, streaming=streaming
    )
    inputs = load_inputs(ModelConfig(path=model), data, data_root=None, prepared=prepared)
    loaded = time.monotonic() - started[0]
    digest = rows_hash(inputs.train, inputs.validation)
    batches = Batches(rows=len(inputs.train), global_batch=BATCH, seed=0)
    tokens = sum(len(inputs.train[row].ids) for step in range(BATCHES) for row in batches.rows_at(step))
    found = {
        "tokens a row": round(tokens / (BATCH * BATCHES)), "libraries": libraries, "peak": peak_mb(),
        "load": loaded, "wall": time.monotonic() - started[0], "cpu": time.process_time() - started[1],
        "hash": digest[:12],
    }  # fmt: skip
    if not streaming and inputs.key and not list(prepared.glob("*.npz")):
        write_prepared(prepared, inputs.key, inputs.split)
    print(json.dumps(found))


def peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def measured(model: str, file: Path, prepared: Path, *, streaming: bool) -> dict[str, float | str]:
    command = [
        sys.executable,
        __file__,
        "--trial",
        str(file),
        str(prepared),
        str(int(streaming)),
        "--model",
        model,
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    found: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="20000,200000")
    parser.add_argument("--form", default="parquet", choices=["parquet", "jsonl"])
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--model")
    parser.add_argument("--trial", nargs=3)
    args = parser.parse_args()
    if args.trial:
        file, prepared, streaming = args.trial
        one_trial(args.model, Path(file), Path(prepared), streaming=streaming == "1")
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = args.model
        if model is None:
            sys.path.insert(0, str(ROOT))
            from tests.fixtures.tiny_model import tiny_model

            model = str(tiny_model(folder / "model"))
        print(
            "| rows | streaming | | tokens a row | peak, MB | load, s | load, hash, 50 batches, s | CPU, s | hash |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for count in map(int, args.rows.split(",")):
            file = folder / f"{count}.{args.form}"
            write_rows(file, count, args.words)
            for streaming in (False, True):
                for which in ("first", "again"):
                    one = measured(model, file, folder / f"prepared-{count}", streaming=streaming)
                    print(
                        f"| {count:,} | {'yes' if streaming else 'no'} | {which} | {one['tokens a row']} "
                        f"| {one['peak']:.0f} | {one['load']:.1f} | {one['wall']:.1f} | {one['cpu']:.1f} "
                        f"| {one['hash']} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
