"""What a trial leaves behind: result.json, curve.jsonl, spans.jsonl. One writer: rank 0.

Only a failing rank also writes a result, and only where none stands: rank 0 may hang in a collective with it.
The first failure is the cause: what fails after it, on rank 0 too, does not replace it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

from hpotune.config.schema.study_config import Json
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.training.training_loop import Line
from hpotune.records.trial import Failure, TrialResult
from hpotune.workspace.atomic_files import write_atomic

RESULT = "result.json"


@dataclass(kw_only=True, slots=True)
class Report:
    """What a trial has found so far; a failure hands in as much of it as there is."""

    folder: Path
    number: int
    first_one: bool
    started: float
    """Unix seconds."""
    earlier_s: float = 0.0
    """Of the processes that trained this trial before, up to the checkpoint."""
    clock: Callable[[], float] = time.time
    metrics: dict[str, Json] = field(default_factory=dict)
    checks: dict[str, Json] = field(default_factory=dict)
    open: list[tuple[str, float]] = field(default_factory=list)
    """The phases that go on, the outermost first, with the start of what is not yet written."""

    @contextmanager
    def phase(self, name: str, *, since: float | None = None) -> Iterator[None]:
        """Writes the span of what happens inside, or from `since` on; phases: load, data, check, train, checkpoint, …

        Spans of a trial never overlap: a phase inside another one cuts it in two.
        """
        start = self.clock() if since is None else since
        if self.open:
            self._span(*self.open[-1], end=start)
        self.open.append((name, start))
        try:
            yield
        finally:
            end = self.clock()
            self._span(*self.open.pop(), end=end)
            if self.open:
                self.open[-1] = (self.open[-1][0], end)

    def curve(self, line: Line) -> None:
        """Appends a line to curve.jsonl."""
        self._append("curve.jsonl", asdict(line))

    def cut_curve(self, step: int) -> None:
        """Drops what curve.jsonl holds beyond `step`: a killed trial repeats those steps."""
        file = self.folder / "curve.jsonl"
        if not self.first_one or not file.exists():
            return
        kept = [line for line in file.read_text().splitlines(keepends=True) if _step(line) <= step]
        write_atomic(file, "".join(kept))

    def warn(self, message: str) -> None:
        """Adds a sentence to the result's warnings."""
        self.metrics.setdefault("warnings", []).append(message)

    def result(
        self, state: Literal["finished", "failed", "paused"], *, failure: Failure | None = None
    ) -> TrialResult:
        """What is known so far, as a result without values."""
        return TrialResult(
            number=self.number, state=state, metrics=self.metrics, checks=self.checks, failure=failure
        )

    def hand_in(self, result: TrialResult) -> None:
        """Writes result.json; a failing rank other than 0 only where none stands, rank 0 only where no failure does."""
        file = self.folder / RESULT
        failing = result.state == "failed"
        if (failing and not file.exists()) or (self.first_one and not (failing and _failure_stands(file))):
            write_atomic(file, result.model_dump_json(indent=1) + "\n")

    def _span(self, name: str, start: float, *, end: float) -> None:
        self._append("spans.jsonl", {"trial": self.number, "phase": name, "start": start, "end": end})

    def _append(self, name: str, entry: dict[str, Json]) -> None:
        if self.first_one:
            with (self.folder / name).open("a") as file:
                file.write(json.dumps(entry) + "\n")


def _failure_stands(file: Path) -> bool:
    return TrialResult.model_validate_json(file.read_text()).state == "failed"


def peak_memory_gb(device: torch.device) -> float:
    """The most memory this rank held, in 10^9 bytes: of the GPU, or resident where there is none."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) / 1e9)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def cost(report: Report, ranks: Ranks) -> dict[str, Json]:
    """Hours of processes and of GPUs up to now, and the highest peak of memory over the ranks; a collective."""
    peaks_gb = ranks.gather(peak_memory_gb(ranks.device))
    return cost_seen(report, ranks.device, world_size=ranks.world_size) | {"peak_memory_gb": max(peaks_gb)}


def cost_seen(report: Report, device: torch.device, *, world_size: int) -> dict[str, Json]:
    """The same as this rank alone sees it: a failing one cannot ask the others."""
    hours = world_size * (report.clock() - report.started + report.earlier_s) / 3600
    return {
        "peak_memory_gb": peak_memory_gb(device),
        "process_hours": hours,
        "gpu_hours": hours if device.type == "cuda" else 0.0,
        "world_size": world_size,
    }


def _step(line: str) -> int:
    # A line cut short by a kill is of a step that comes again.
    try:
        return int(json.loads(line)["step"])
    except json.JSONDecodeError:
        return sys.maxsize
