"""The rehearsal of a study: a trial up to its first step, on the login node, in a process of its own.

    Study -> points at the corners -> `python -m hpotune.finetune.rehearsal` (one core, --memory, --time) -> Findings

A result without mistakes is kept under $HPOTUNE_CACHE and used again while nothing that it depends on changes: the
sections of the study file, the files that they name, the versions of the libraries.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from hpotune.checks.fetched_files import fetched_mistakes, lock_text
from hpotune.checks.finding import Finding, Level
from hpotune.checks.row_lengths import file_facts, keep_lengths
from hpotune.config.corners import corner_points
from hpotune.config.lm_eval_tasks import cache_folder
from hpotune.config.load import Study
from hpotune.config.ownership import check_cache
from hpotune.config.schema.study_config import PointConfig, StudyConfig
from hpotune.config.yaml_source import KeyPath
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.records.rehearsal_record import (
    RehearsalProgress,
    RehearsalRecord,
    RehearsalResult,
    RehearsalSpec,
)
from hpotune.workspace.atomic_files import copy_atomic, write_atomic
from hpotune.workspace.fetched_lock import located, lock_file, read_lock
from hpotune.workspace.folder import StudyFolder, folder_of_source, home_of

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "lm_eval")
SECTIONS = {"model", "data", "lora", "train", "score", "data_root", "env", "resources"}
"""Sections of the study file that the rehearsal reads."""
KEPT_FILES = ("*.npz", "*.tokens", "model-*.json")
"""What a rehearsal leaves for the trials of a study: rows, in one of two forms, and passed checks of the model."""
POLL_S = 0.1
KEY = re.compile(r"([a-z_]+(?:\.\w+)*)[:=]")
"""The key at the start of a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the rehearsal may use; its process is ended when it uses more."""

    memory_gb: float = 2.0
    """Resident memory, in GB (10^9 bytes)."""
    seconds: float = 600.0

    def __str__(self) -> str:
        if self == NO_LIMITS:
            return "one core"
        return f"one core, up to {self.memory_gb:g} GB and {self.seconds:g} s"


NO_LIMITS = Limits(memory_gb=math.inf, seconds=math.inf)
"""For a rehearsal in a job, which Slurm limits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """The outcome for one study."""

    result: RehearsalResult | None
    """None: not rehearsed."""
    skipped: str = ""
    """Why not; empty if it was rehearsed."""
    again: bool = False
    """Whether the result is that of an earlier rehearsal of the same content."""
    prepared: Path | None = None
    """The folder of the tokenized rows, and of the checks of the model that passed."""

    @property
    def findings(self) -> list[Finding]:
        """The mistakes as errors and the warnings as notes, at the keys that they start with."""
        if self.result is None:
            return [Finding(kind="rehearsal", level="note", text=f"not rehearsed: {self.skipped}")]
        errors = [_finding(text, level="bad") for text in self.result.mistakes]
        return errors + [
            _finding(text, level="note") for text in [*self.result.missing, *self.result.warnings]
        ]

    def raise_mistakes(self, study: Study, *, complete: bool = False) -> None:
        """Check that nothing is wrong; `complete`: and nothing is left to download.

        Raises: StudyFileError with every mistake, one line each.
        """
        if self.result is None:
            return
        texts = [*self.result.mistakes, *(self.result.missing if complete else [])]
        if texts:
            raise StudyFileError(*(_finding(text, level="bad").message(study.source) for text in texts))


def rehearse(
    study: Study,
    *,
    limits: Limits,
    folder: StudyFolder | None = None,
    preview: bool = False,
    show: Callable[[str], None] = lambda _: None,
) -> Rehearsal:
    """Rehearse the study, or find the result of an earlier rehearsal of the same content.

    `folder`: of the study, which may hold the lock file of `hpotune fetch`; None: as the study file names it.
    `preview`: with the rows of the first point; always a new rehearsal. So is that of a study with own lm-eval tasks.
    `show` gets a line for each step and its progress.

    Raises: StudyFileError for files that were fetched and are gone; HpotuneError if the process uses more than the
    limits, or cannot be run.
    """
    config = study.config
    lock = lock_file((folder or folder_of_source(study.source, own=False)).path)
    if config.model is not None and (absent := fetched_mistakes(study, _points(study), lock)):
        raise StudyFileError(*(_finding(text, level="bad").message(study.source) for text in absent))
    if skipped := _why_not(config):
        return Rehearsal(result=None, skipped=skipped)
    spec = _spec(study, lock=lock, preview=preview)
    # The data of own tasks may be anywhere, so that nothing shows whether it has changed.
    reusable = not preview and not any(point.score.include_path for point in spec.points)
    kept = cache_folder() / "rehearsals" / content_hash(study, spec)
    prepared, record = kept / "prepared", kept / "result.json"
    check_cache(cache_folder(), kept.parent, kept, record, prepared, *prepared.glob("*"))
    if reusable and (result := _read_kept(record)):
        return Rehearsal(result=result, again=True, prepared=prepared)
    show(f"rehearsal: {limits}")
    if not preview:
        spec = spec.model_copy(update={"prepared": str(prepared)})
    result = _run(spec, config, limits=limits, show=show)
    keep_lengths(study, result)
    if reusable and not (result.mistakes or result.missing):
        _keep(record, result)
    return Rehearsal(result=result, prepared=None if preview else prepared)


def record_rehearsal(folder: StudyFolder, rehearsal: Rehearsal | None) -> None:
    """Write the study's rehearsal.json. None: `--no-rehearsal`."""
    if rehearsal is None or rehearsal.result is None:
        record = RehearsalRecord(state="skipped")
    else:
        found = rehearsal.result
        state: Literal["passed", "failed"] = "failed" if found.mistakes else "passed"
        record = RehearsalRecord(state=state, mistakes=found.mistakes, warnings=found.warnings)
    write_atomic(folder.rehearsal_file, record.model_dump_json(indent=1) + "\n")
    if rehearsal is not None and rehearsal.prepared is not None:
        for pattern in KEPT_FILES:
            for file in rehearsal.prepared.glob(pattern):
                folder.prepared.mkdir(exist_ok=True)
                copy_atomic(file, folder.prepared / file.name)


def _why_not(config: StudyConfig) -> str:
    """Why a study cannot be rehearsed on this machine; empty if it can."""
    if config.model is None:
        return "only fine-tuning is rehearsed, not a function or command"
    if config.env.container is not None:
        return "its trials run in a container; write resources.rehearsal: job, or look at its first trial"
    if config.env.venv != "auto":
        return ""  # its process reports what is missing
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed here (pip install 'hpotune[trial]')" if missing else ""


def _spec(study: Study, *, lock: Path | None, preview: bool) -> RehearsalSpec:
    resources, fetched = study.config.resources, read_lock(lock)
    return RehearsalSpec(
        study=study.config.name,
        points=[located(point, fetched) for point in _points(study)],
        fetched=str(lock) if lock is not None else None,
        world_size=resources.nodes * resources.processes_per_node,
        home=str(home_of(study.source.path)),
        data_root=study.config.data_root,
        offline=study.config.env.offline,
        preview=preview,
    )


def _points(study: Study) -> list[PointConfig]:
    """The point of the baseline, and those at the corners of the space; points that cannot be built are left out."""
    points = {study.base().model_dump_json(): study.base()}
    for drawn in corner_points(study.space):
        try:
            point = study.point(drawn)
        except ValueError:
            continue  # the search does not draw it either
        points.setdefault(point.model_dump_json(), point)
    return list(points.values())


def content_hash(study: Study, spec: RehearsalSpec) -> str:
    """A hash that changes with anything that the rehearsal depends on, except what lies on a hub."""
    values = {key: value for key, value in study.template.items() if key in SECTIONS}
    facts = {
        "values": values,
        "points": [point.model_dump(mode="json") for point in spec.points],
        "fetched": lock_text(lock) if (lock := read_lock(_path(spec.fetched))) is not None else None,
        "files": [fact for point in spec.points for path in _paths(point, spec) for fact in file_facts(path)],
        "versions": {name: _version(name) for name in ("hpotune", *LIBRARIES)},
        "hub": [os.environ.get(name) for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE")],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _path(text: str | None) -> Path | None:
    return Path(text) if text is not None else None


def _paths(point: PointConfig, spec: RehearsalSpec) -> Iterator[Path]:
    """Local files and folders that a point reads."""
    assert point.model is not None, "only fine-tuning is rehearsed"
    rows = [one.path for one in point.data.sources.values()] if point.data is not None else []
    names = [point.model.path, point.model.tokenizer, *rows, point.score.include_path]
    for name in filter(None, names):
        yield Path(name)
        if spec.data_root is not None:
            yield Path(spec.data_root) / name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read_kept(file: Path) -> RehearsalResult | None:
    try:
        return RehearsalResult.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _keep(file: Path, result: RehearsalResult) -> None:
    """Write the result to the cache if possible; without it the next command rehearses again."""
    try:
        write_atomic(file, result.model_dump_json())
    except OSError:
        return


def _run(
    spec: RehearsalSpec, config: StudyConfig, *, limits: Limits, show: Callable[[str], None]
) -> RehearsalResult:
    """The result of the rehearsal's process.

    Raises: HpotuneError.
    """
    with tempfile.TemporaryDirectory(prefix="hpotune-rehearsal-") as folder:
        given, written, log = (Path(folder, name) for name in ("spec.json", "result.json", "log.txt"))
        given.write_text(spec.model_dump_json(), encoding="utf-8")
        command = [_python(config), "-m", "hpotune.finetune.rehearsal", str(given), str(written)]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command,
                env=_environment(config),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                _watch(process, limits, show)
            finally:
                process.kill()
                process.wait()
        result = _read_kept(written)
        if result is None:
            raise HpotuneError(_died(process.returncode, log))
        return result


def _died(code: int, log: Path) -> str:
    """Why the process left no result."""
    if code == -signal.SIGKILL:
        reason = "was killed, perhaps for want of memory; write resources.rehearsal: job in the study file"
        return f"the rehearsal {reason}, or leave it out with --no-rehearsal (`check`: --static)"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (
        f"the rehearsal ended with exit code {code}: {lines[-1] if lines else 'no output'}; leave it out with "
        "--no-rehearsal (`check`: --static)"
    )


def _python(config: StudyConfig) -> str:
    venv = config.env.venv
    return sys.executable if venv in ("auto", None) else f"{venv}/bin/python"


def _environment(config: StudyConfig) -> dict[str, str]:
    """One core, no GPU, and the variables of the study's trials."""
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    return {**os.environ, **config.env.vars, **own}


def _watch(process: subprocess.Popen[bytes], limits: Limits, show: Callable[[str], None]) -> None:
    """Wait for the process to end, showing its progress.

    Raises: HpotuneError as soon as it uses more than the limits.
    """
    reader = threading.Thread(target=_show_progress, args=(process, show), daemon=True)
    reader.start()
    until = time.monotonic() + limits.seconds
    while process.poll() is None:
        if resident_gb(process.pid) > limits.memory_gb:
            raise HpotuneError(
                _over("memory", f"{limits.memory_gb:g} GB", f"--memory {2 * limits.memory_gb:g}")
            )
        if time.monotonic() > until:
            raise HpotuneError(_over("time", f"{limits.seconds:g} s", f"--time {2 * limits.seconds:g}"))
        time.sleep(POLL_S)
    reader.join()


def _over(what: str, limit: str, option: str) -> str:
    return (
        f"the rehearsal needs more {what} than {limit}; allow more with {option}, write resources.rehearsal: job in "
        "the study file, or leave it out with --no-rehearsal (`check`: --static)"
    )


def _show_progress(process: subprocess.Popen[bytes], show: Callable[[str], None]) -> None:
    assert process.stdout is not None, "opened with a pipe"
    for line in process.stdout:
        progress = RehearsalProgress.model_validate_json(line)
        counted = f" {progress.done:,} of {progress.total:,}" if progress.total else ""
        show(f"rehearsal: {progress.step}{counted}")


def resident_gb(pid: int) -> float:
    """The resident memory of a process in GB (10^9 bytes); 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def _finding(text: str, *, level: Level) -> Finding:
    """A message of the rehearsal, at the key that it starts with; at none if it starts with none."""
    found = KEY.match(text)
    key: KeyPath | None = tuple(found[1].split(".")) if found else None
    return Finding(kind="rehearsal", level=level, key=key, text=text)
