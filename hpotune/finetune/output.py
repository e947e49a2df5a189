"""What a trial writes: result.json, curve.jsonl, spans.jsonl, progress.json. One writer: rank 0.

Another rank writes a result only if it fails and there is no result.json: rank 0 may be blocked in a collective with
it. The first failure is the cause: a later one, on rank 0 too, does not replace it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

from hpotune.config.yaml_source import Value
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.energy import EnergyMeter
from hpotune.finetune.progress_file import ProgressFile
from hpotune.finetune.training.training_loop import CurvePoint
from hpotune.records.progress_record import Phase
from hpotune.records.trial import Failure, TrialResult
from hpotune.workspace.atomic_files import open_append, write_atomic

RESULT = "result.json"
SpanName = Literal["load", "data", "check", "train", "checkpoint", "save", "score"]


@dataclass(kw_only=True, slots=True)
class TrialOutput:
    """The measurements of a trial so far, and the writer of its files; a failure writes those there are."""

    folder: Path
    number: int
    is_main: bool
    """Whether this process is rank 0."""
    started: float
    """Unix seconds."""
    earlier_process_s: float = 0.0
    """Seconds of the earlier processes of this trial, up to the checkpoint."""
    clock: Callable[[], float] = time.time
    metrics: dict[str, Value] = field(default_factory=dict)
    checks: dict[str, Value] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """SHA-256 of what the model is given, for provenance.json: `rows`, and each task's requests."""
    energy: EnergyMeter | None = None
    """The counter of this rank's GPU; None: it has none that is readable."""
    energy_wh: float | None = None
    """Of the GPUs of all ranks, once `measured_cost` was called; None: not measured."""
    failed_phase: str | None = None
    """The innermost phase that an exception ended."""
    open_phases: list[tuple[str, float]] = field(default_factory=list)
    """The phases in progress, outermost first: name, and start in Unix seconds of the span not yet written."""
    ran_out_of_memory: bool = False
    """Whether a training pass did, and was repeated with fewer rows."""
    progress: ProgressFile = field(init=False)

    def __post_init__(self) -> None:
        self.progress = ProgressFile(folder=self.folder if self.is_main else None)

    @contextmanager
    def phase(
        self, name: SpanName, *, since: float | None = None, shown: Phase | None = None
    ) -> Iterator[None]:
        """Write the span of the block, or from `since` on, and show the phase meanwhile, as `shown` if that is given.

        Spans of a trial never overlap: a phase inside another one splits it into two.
        """
        start = self.clock() if since is None else since
        if self.open_phases:
            self._write_span(*self.open_phases[-1], end=start)
        self.open_phases.append((name, start))
        try:
            with self.progress.phase(shown or name):
                yield
        except Exception:
            self.failed_phase = self.failed_phase or name
            raise
        finally:
            end = self.clock()
            self._write_span(*self.open_phases.pop(), end=end)
            if self.open_phases:
                self.open_phases[-1] = (self.open_phases[-1][0], end)

    def append_curve(self, point: CurvePoint) -> None:
        """Append a line to curve.jsonl."""
        self._append("curve.jsonl", asdict(point))

    def truncate_curve(self, step: int) -> None:
        """Remove the lines of curve.jsonl after `step`: a resumed trial repeats those steps."""
        file = self.folder / "curve.jsonl"
        if not self.is_main or not file.exists():
            return
        kept = [line for line in file.read_text().splitlines(keepends=True) if _step_of_line(line) <= step]
        write_atomic(file, "".join(kept))

    def add_warning(self, message: str) -> None:
        """Add a message to the result's warnings."""
        warnings = self.metrics.setdefault("warnings", [])
        assert isinstance(warnings, list), "only this method writes it"
        warnings.append(message)

    def result(
        self, state: Literal["finished", "failed", "paused"], *, failure: Failure | None = None
    ) -> TrialResult:
        """The measurements so far as a result without values."""
        return TrialResult(
            number=self.number, state=state, metrics=self.metrics, checks=self.checks, failure=failure
        )

    def write_result(self, result: TrialResult) -> None:
        """Write result.json: a failure if there is no result yet; on rank 0 also unless it would replace a failure."""
        file = self.folder / RESULT
        failed = result.state == "failed"
        if (failed and not file.exists()) or (self.is_main and not (failed and _holds_failure(file))):
            write_atomic(file, result.model_dump_json(indent=1) + "\n")
        self.progress.remove()

    def _write_span(self, name: str, start: float, *, end: float) -> None:
        self._append("spans.jsonl", {"trial": self.number, "phase": name, "start": start, "end": end})

    def _append(self, name: str, entry: Mapping[str, Value]) -> None:
        if self.is_main:
            with open_append(self.folder / name) as file:
                file.write((json.dumps(entry) + "\n").encode())


def _holds_failure(file: Path) -> bool:
    return TrialResult.model_validate_json(file.read_text()).state == "failed"


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory of this rank in GB (10^9 bytes): of the GPU, or the resident set size without one."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) / 1e9)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measured_cost(output: TrialOutput, ranks: Ranks) -> dict[str, Value]:
    """Process-hours and GPU-hours so far, and the highest peak memory of the ranks. A collective."""
    energy_wh = output.energy.used_wh() if output.energy is not None else None
    both = ranks.all_gather_object((peak_memory_gb(ranks.device), energy_wh))
    peaks_gb, energies_wh = zip(*both, strict=True)
    output.energy_wh = None if None in energies_wh else sum(energies_wh)
    return own_cost(output, ranks.device, world_size=ranks.world_size) | {"peak_memory_gb": max(peaks_gb)}


def own_cost(output: TrialOutput, device: torch.device, *, world_size: int) -> dict[str, Value]:
    """The same without a collective, with the peak memory of this rank: a failing rank cannot ask the others."""
    hours = world_size * (output.clock() - output.started + output.earlier_process_s) / 3600
    return {
        "peak_memory_gb": peak_memory_gb(device),
        "process_hours": hours,
        "gpu_hours": hours if device.type == "cuda" else 0.0,
        "world_size": world_size,
    }


def _step_of_line(line: str) -> int:
    # A line that a kill truncated belongs to a step that is repeated.
    try:
        return int(json.loads(line)["step"])
    except json.JSONDecodeError:
        return sys.maxsize
