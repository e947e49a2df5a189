"""Looks at everything a study leans on and says what to change.

Imports none of the heavy libraries: it reads their versions.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from hpotune.errors import HpotuneError
from hpotune.filesystem import probe
from hpotune.launch.gpus import gpu_lines
from hpotune.launch.queue import ask
from hpotune.study.config import Json
from hpotune.study.folder import StudyFolder, folder_of

LEAST = {
    "torch": "2.7",
    "transformers": "5",
    "peft": "0.21",
    "accelerate": "1.15",
    "datasets": "4",
    "lm-eval": "0.4.13",
}
LEAST_FREE_GB = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Literal["ok", "note", "bad"]
    what: str
    found: str
    change: str = ""
    """What to do about it."""

    def as_json(self) -> dict[str, Json]:
        """As a plain mapping."""
        return asdict(self)


def findings(target: Path) -> list[Finding]:
    """Everything that was found, for a study file, a study's folder or any folder."""
    place = folder_of(target).path
    folder = next(path for path in (place, *place.parents) if path.is_dir())  # the study may not be made yet
    looks: list[Callable[[], Iterator[Finding]]] = [
        _slurm,
        lambda: _files(folder),
        _gpus,
        _libraries,
        _caches,
        lambda: _store(place),
    ]
    return [finding for look in looks for finding in look()]


def _slurm() -> Iterator[Finding]:
    missing = [
        name
        for name in ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel")
        if shutil.which(name) is None
    ]
    if "sbatch" in missing:
        yield Finding(
            level="note",
            what="slurm",
            found="no Slurm here",
            change="`hpotune run` works; submit from a login node",
        )
        return
    if missing:
        yield Finding(
            level="note",
            what="slurm",
            found=f"no {', '.join(missing)}",
            change="states of ended jobs are told by the queue alone",
        )
    try:
        lines = dict.fromkeys(ask(["sinfo", "-h", "-o", "%R: %D nodes, %G, at most %l"]).splitlines())
        limits = [
            line.split("=")
            for line in ask(["scontrol", "show", "config"]).splitlines()
            if line.startswith("MaxArraySize")
        ]
    except HpotuneError as error:
        yield Finding(
            level="bad", what="slurm", found=str(error), change="ask your centre, or set SLURM_CONF"
        )
        return
    for line in lines:
        yield Finding(level="ok", what="partition", found=line)
    if limits:
        yield Finding(level="ok", what="slurm", found=f"job arrays up to index {int(limits[0][1]) - 1}")


def _files(folder: Path) -> Iterator[Finding]:
    found = probe(folder)
    if found.choice is None:
        yield Finding(
            level="bad",
            what="locks",
            found=found.why,
            change="put studies on another file system, or use PostgreSQL",
        )
    else:
        yield Finding(level="ok", what="locks", found=f"{found.why}: store auto means {found.choice}")
    free_gb = shutil.disk_usage(folder).free / 1e9
    level: Literal["ok", "bad"] = "ok" if free_gb >= LEAST_FREE_GB else "bad"
    yield Finding(
        level=level,
        what="disk",
        found=f"{free_gb:.0f} GB free in {folder.absolute()}",
        change="" if level == "ok" else "make room",
    )
    if folder.absolute().is_relative_to(Path.home()):
        yield Finding(
            level="note",
            what="disk",
            found="this is under your home",
            change="homes are small: put studies on project storage",
        )


def _gpus() -> Iterator[Finding]:
    if shutil.which("nvidia-smi") is None:
        yield Finding(
            level="note",
            what="gpu",
            found="no GPU on this machine",
            change="login nodes rarely have one; trials here run on the CPU",
        )
        return
    try:
        lines = gpu_lines()
    except HpotuneError as error:
        yield Finding(
            level="bad", what="gpu", found=str(error), change="its driver is broken or busy: ask your centre"
        )
        return
    for line in lines:
        yield Finding(level="ok", what="gpu", found=line.split(" (UUID")[0])


def _libraries() -> Iterator[Finding]:
    for name, least in LEAST.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(
                level="note",
                what="library",
                found=f"no {name}",
                change="trials need it: pip install 'hpotune[trial]'",
            )
            continue
        if _numbers(version) < _numbers(least):
            yield Finding(
                level="bad",
                what="library",
                found=f"{name} {version}",
                change=f"needs at least {least}: pip install -U {name}",
            )
        else:
            yield Finding(level="ok", what="library", found=f"{name} {version}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split("+")[0].split(".") if part.isdigit()]


def _caches() -> Iterator[Finding]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    if home.is_relative_to(Path.home()):
        change = "set HF_HOME to project storage that compute nodes see, in your shell and in env.vars"
        yield Finding(level="note", what="cache", found=f"HF_HOME is {home}", change=change)
    held = sorted(path.name for path in (home / "hub").glob("*--*")) if (home / "hub").is_dir() else []
    yield Finding(level="ok", what="cache", found=f"{len(held)} models and datasets in {home / 'hub'}")


def _store(folder: Path) -> Iterator[Finding]:
    place = StudyFolder(path=folder)
    if not place.provenance_file.is_file():
        return
    from hpotune.store import Store

    url = str(place.provenance()["store"])
    try:
        rows = Store.open(url, place.load(), read_only=True).rows()
    except HpotuneError as error:
        yield Finding(level="bad", what="store", found=str(error), change="see the message")
        return
    yield Finding(level="ok", what="store", found=f"{url}: {len(rows)} trials")
