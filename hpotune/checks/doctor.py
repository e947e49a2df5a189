"""Looks at everything a study leans on and says what to change.

Imports none of the heavy libraries: it reads their versions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from hpotune.checks.doctor_data import cache_findings, disk_clock, store_findings
from hpotune.checks.doctor_slurm import slurm_findings
from hpotune.checks.finding import Finding as Finding
from hpotune.checks.finding import exit_code as exit_code
from hpotune.checks.gpus import gpu_lines
from hpotune.config.load import load_study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import HpotuneError
from hpotune.storage.backends.filesystem_probe import advice, flock_holds, local_locks, mount, probe
from hpotune.workspace.folder import StudyFolder, folder_of

LEAST = {
    "torch": "2.7",
    "transformers": "5",
    "peft": "0.21",
    "accelerate": "1.15",
    "datasets": "4",
    "lm-eval": "0.4.13",
}
LEAST_FREE_GB = 5.0


def findings(target: Path) -> list[Finding]:
    """Everything that was found, for a study file, a study's folder or any folder."""
    place = folder_of(target)
    folder = next(
        path for path in (place.path, *place.path.parents) if path.is_dir()
    )  # it may not be made yet
    config = _config(target, place)
    looks: list[Callable[[], Iterator[Finding]]] = [
        lambda: slurm_findings(config),
        lambda: _files(folder),
        lambda: disk_clock(folder),
        _gpus,
        _libraries,
        lambda: cache_findings(config),
        lambda: store_findings(place),
    ]
    return [finding for look in looks for finding in look()]


def _config(target: Path, place: StudyFolder) -> StudyConfig | None:
    """What the study says; None where there is none, or it is wrong (`hpotune check` says how)."""
    try:
        return load_study(target).config if target.is_file() else place.load().config
    except HpotuneError:
        return None


def _files(folder: Path) -> Iterator[Finding]:
    yield from _mounted(folder)
    found = probe(folder)
    if found.choice is None:
        change = "put studies on another file system, or use PostgreSQL"
        yield Finding(level="bad", kind="locks", text=found.why, advice=change)
    else:
        yield Finding(kind="locks", text=f"{found.why}: store auto means {found.choice}")
    if broken := flock_holds(folder):
        change = "two steps at once would submit twice: put studies on another file system"
        yield Finding(level="bad", kind="locks", text=f"flock does not hold here: {broken}", advice=change)
    free_gb = shutil.disk_usage(folder).free / 1e9
    enough = free_gb >= LEAST_FREE_GB
    yield Finding(
        level="ok" if enough else "bad", kind="disk", text=f"{free_gb:.0f} GB free in {folder.absolute()}",
        advice="" if enough else "make room",
    )  # fmt: skip
    if folder.absolute().is_relative_to(Path.home()):
        change = "homes are small: put studies on project storage"
        yield Finding(level="note", kind="disk", text="this is under your home", advice=change)


def _mounted(folder: Path) -> Iterator[Finding]:
    place = mount(folder)
    words = advice(place.kind, slurm=shutil.which("sbatch") is not None)
    yield Finding(
        level="note" if words else "ok", kind="disk", text=f"{place.kind} on {place.point}", advice=words
    )
    if option := local_locks(place):
        yield Finding(
            level="bad", kind="locks", text=f"mounted with {option}: locks hold on one node only",
            advice="use PostgreSQL as the store, submit from one node only, or ask your centre for locks across nodes",
        )  # fmt: skip


def _gpus() -> Iterator[Finding]:
    if shutil.which("nvidia-smi") is None:
        yield Finding(
            level="note",
            kind="gpu",
            text="no GPU on this machine",
            advice="login nodes rarely have one; trials here run on the CPU",
        )
        return
    try:
        lines = gpu_lines()
    except HpotuneError as error:
        yield Finding(
            level="bad", kind="gpu", text=str(error), advice="its driver is broken or busy: ask your centre"
        )
        return
    for line in lines:
        yield Finding(level="ok", kind="gpu", text=line.split(" (UUID")[0])


def _libraries() -> Iterator[Finding]:
    for name, least in LEAST.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(
                level="note",
                kind="library",
                text=f"no {name}",
                advice="trials need it: pip install 'hpotune[trial]'",
            )
            continue
        if _numbers(version) < _numbers(least):
            yield Finding(
                level="bad",
                kind="library",
                text=f"{name} {version}",
                advice=f"needs at least {least}: pip install -U {name}",
            )
        else:
            yield Finding(level="ok", kind="library", text=f"{name} {version}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split("+")[0].split(".") if part.isdigit()]
