"""A tiny model, its topic rows, and trials of them: in this process, or as the processes they really are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.output import Report
from hpotune.finetune.pipeline import run
from hpotune.records.trial import TrialResult, TrialSpec
from tests.tiny import tiny_model, topic_rows

ROOT = Path(__file__).resolve().parents[2]
ALONE = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

SHORT = {"prompt": "{input} Topic: ", "response": "{output}"}

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model/ (float64) and rows.jsonl (48 rows)."""
    folder = tmp_path_factory.mktemp("home")
    tiny_model(folder / "model", dtype="float64", layers=2)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topic_rows(48)))
    return folder


@pytest.fixture
def make_spec(home: Path, tmp_path: Path) -> Callable[..., TrialSpec]:
    """`spec_in` this test's folder."""
    return partial(spec_in, tmp_path, home)


def spec_in(
    place: Path,
    home: Path,
    name: str = "trial",
    *,
    spec: dict[str, Any] | None = None,
    **sections: dict[str, Any],
) -> TrialSpec:
    """A trial of twelve exact steps; keyword arguments replace keys of the sections, `spec` those of the trial."""
    point: dict[str, dict[str, Any]] = {
        "model": {"path": str(home / "model"), "dtype": "float64"},
        "data": {"path": str(home / "rows.jsonl"), "validation": 8, **SHORT},
        "lora": {"r": 4, "lora_alpha": 8},
        "train": {"learning_rate": 5e-3, "max_steps": 12, "global_batch_size": 8, "logging_steps": 1},
        "score": {"objective": [{"metric": "eval_loss"}]},
    }
    for section, values in sections.items():
        point[section] = point[section] | values
    folder = place / name
    folder.mkdir(exist_ok=True)
    given = {"study": "s", "number": 1, "kind": "trial", "seed": 3, "folder": str(folder), "point": point}
    return TrialSpec.model_validate(given | (spec or {}))


def here(spec: TrialSpec, *, stop: Callable[[], bool] = lambda: False) -> TrialResult:
    """The trial in this process; errors are raised."""
    report = Report(folder=Path(spec.folder), number=spec.number, first_one=True, started=time.time())
    return run(spec, ranks=ALONE, report=report, stop=stop)


def start(
    spec: TrialSpec, *, processes: int = 1, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """The trial as one process, or under torchrun."""
    file = Path(spec.folder) / "spec.json"
    file.write_text(spec.model_dump_json())
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "hpotune.finetune", str(file)]
    log = (Path(spec.folder) / "log.txt").open("ab")
    return subprocess.Popen(command, env=ENV | (env or {}), stdout=log, stderr=log)


def result_of(spec: TrialSpec) -> TrialResult:
    """What result.json says."""
    return TrialResult.model_validate_json((Path(spec.folder) / "result.json").read_text())


def adapter_of(spec: TrialSpec) -> dict[str, torch.Tensor]:
    """The saved adapter."""
    return load_file(Path(spec.folder) / "adapter" / "adapter_model.safetensors")


def apart(one: TrialSpec, other: TrialSpec) -> float:
    """The largest difference of two saved adapters."""
    a, b = adapter_of(one), adapter_of(other)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
