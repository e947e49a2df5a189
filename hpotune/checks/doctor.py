"""`hpotune doctor`: checks of Slurm, HyperQueue, file system, GPUs, library versions, caches and store, with advice.

Imports no library of the training: only their installed versions are read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from hpotune.checks.auto_gpus import is_auto
from hpotune.checks.doctor_data import cache_findings, disk_clock, store_findings
from hpotune.checks.doctor_slurm import held_findings, slurm_findings
from hpotune.checks.finding import Finding as Finding
from hpotune.checks.finding import exit_code as exit_code
from hpotune.checks.gpus import gpu_lines
from hpotune.checks.hyperqueue_server import hyperqueue_findings
from hpotune.checks.node_local import node_local_findings
from hpotune.checks.study_file import check
from hpotune.config.load import load_study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import HpotuneError
from hpotune.storage.backends.filesystem_probe import advice, flock_holds, probe
from hpotune.workspace.folder import StudyFolder, folder_of
from hpotune.workspace.mounts import local_locks, mount

MIN_VERSIONS = {
    "torch": "2.7",
    "transformers": "5",
    "peft": "0.21",
    "accelerate": "1.15",
    "datasets": "4",
    "lm-eval": "0.4.13",
}
MIN_FREE_GB = 5.0


def findings(target: Path) -> list[Finding]:
    """All findings for a study file, a study folder or any other folder."""
    study_folder = folder_of(target)
    # The study folder may not exist yet.
    folder = next(path for path in (study_folder.path, *study_folder.path.parents) if path.is_dir())
    config = _config(target, study_folder)
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: slurm_findings(config),
        lambda: held_findings(study_folder),
        lambda: hyperqueue_findings(config),
        lambda: _files(folder),
        lambda: node_local_findings(config, study_folder) if config else iter(()),
        lambda: disk_clock(folder),
        _gpus,
        _libraries,
        lambda: cache_findings(config),
        lambda: store_findings(study_folder),
    ]
    return [finding for check in checks for finding in check()]


def _config(target: Path, folder: StudyFolder) -> StudyConfig | None:
    """The study's configuration; None without a study, or if the study file has errors (see `hpotune check`)."""
    try:
        study = load_study(target) if target.is_file() else folder.load()
        if not is_auto(study.source.values):
            return study.config
        with suppress(HpotuneError):
            return check(target).study.config  # with the number of GPUs that it stands for
        return study.config
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
        change = "two simultaneous submits would both submit jobs: put studies on another file system"
        yield Finding(level="bad", kind="locks", text=f"flock does not work here: {broken}", advice=change)
    free_gb = shutil.disk_usage(folder).free / 1e9
    enough = free_gb >= MIN_FREE_GB
    yield Finding(
        level="ok" if enough else "bad", kind="disk", text=f"{free_gb:.0f} GB free in {folder.absolute()}",
        advice="" if enough else f"free disk space; a study needs {MIN_FREE_GB:g} GB",
    )  # fmt: skip
    if folder.absolute().is_relative_to(Path.home()):
        change = "home directories are often small: put studies on project storage"
        yield Finding(level="note", kind="disk", text="the folder is in your home directory", advice=change)


def _mounted(folder: Path) -> Iterator[Finding]:
    mounted = mount(folder)
    change = advice(mounted.kind, slurm=shutil.which("sbatch") is not None)
    yield Finding(
        level="note" if change else "ok",
        kind="disk",
        text=f"{mounted.kind} on {mounted.point}",
        advice=change,
    )
    if option := local_locks(mounted):
        yield Finding(
            level="bad", kind="locks", text=f"mounted with {option}: file locks work within one node only",
            advice="use PostgreSQL as the store, submit from one node only, or ask your centre for locks across nodes",
        )  # fmt: skip


def _gpus() -> Iterator[Finding]:
    if shutil.which("nvidia-smi") is None:
        yield Finding(
            level="note",
            kind="gpu",
            text="no GPU on this machine",
            advice="login nodes rarely have GPUs; trials on this machine run on the CPU",
        )
        return
    try:
        lines = gpu_lines()
    except HpotuneError as error:
        yield Finding(
            level="bad",
            kind="gpu",
            text=str(error),
            advice="the GPU driver is broken or busy: ask your centre",
        )
        return
    for line in lines:
        yield Finding(level="ok", kind="gpu", text=line.split(" (UUID")[0])


def _libraries() -> Iterator[Finding]:
    for name, minimum in MIN_VERSIONS.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(
                level="note",
                kind="library",
                text=f"{name} is not installed",
                advice="fine-tuning needs it: pip install 'hpotune[trial]'",
            )
            continue
        if _numbers(version) < _numbers(minimum):
            yield Finding(
                level="bad",
                kind="library",
                text=f"{name} {version}",
                advice=f"needs at least {minimum}: pip install -U {name}",
            )
        else:
            yield Finding(level="ok", kind="library", text=f"{name} {version}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split("+")[0].split(".") if part.isdigit()]
