"""The environment of a process: Python, installed packages, system, processor, GPU and driver.

It is stored once for all trials that share it: environments/KEY.json, KEY being a hash of its content. Found without
starting a program or importing a package: a trial of a function may last milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.workspace.atomic_files import write_atomic

_INSTALLED = re.compile(r"(.+)-([^-]+)\.(?:dist|egg)-info")
_NVIDIA = Path("/proc/driver/nvidia")


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """What a trial's numbers may depend on besides its settings, its code and its data."""

    python: str
    system: str
    """Kernel, processor type and C library."""
    cpu: str
    """The processor's name; empty if it is not known."""
    gpu: str
    """The names of the node's GPUs, each once; empty without NVIDIA GPUs."""
    driver: str
    """Version of the NVIDIA driver; empty without one."""
    packages: Mapping[str, str]
    """Every installed distribution by its normalized name -> version."""

    @property
    def key(self) -> str:
        """A hash of the content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def this_environment() -> Environment:
    """The environment of this process."""
    return Environment(
        python=platform.python_version(),
        system=platform.platform(),
        cpu=_cpu(),
        gpu=_gpu(),
        driver=_driver(),
        packages=dict(sorted(_packages())),
    )


def write_environment(study: Path, environment: Environment) -> str:
    """Write the environment into the study's folder unless it is there; returns its key.

    Raises: OSError.
    """
    file = study / "environments" / f"{environment.key}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(asdict(environment), indent=1) + "\n")
    return environment.key


def read_environment(study: Path, key: str) -> Environment | None:
    """The environment of a key; None where its file is missing or damaged."""
    if not re.fullmatch(r"[0-9a-f]{16}", key):
        return None
    found = optional_object(study / "environments" / f"{key}.json")
    if found is None or not isinstance(found.get("packages"), dict):
        return None
    texts = {name: str(found.get(name, "")) for name in ("python", "system", "cpu", "gpu", "driver")}
    return Environment(**texts, packages={str(k): str(v) for k, v in found["packages"].items()})


def environment_differences(before: Environment, now: Environment) -> list[tuple[str, str, str]]:
    """(what, before, now) of everything that differs; a package that is missing has an empty version."""
    names = ("python", "system", "cpu", "gpu", "driver")
    found = [(name, getattr(before, name), getattr(now, name)) for name in names]
    for name in sorted({*before.packages, *now.packages}):
        found.append((name, before.packages.get(name, ""), now.packages.get(name, "")))
    return [(what, old, new) for what, old, new in found if old != new]


def _packages() -> Iterator[tuple[str, str]]:
    """Name and version of each distribution on the import path, by the name of its folder; the first one counts."""
    seen: set[str] = set()
    for folder in sys.path:
        names: list[str] = []
        with suppress(OSError):  # a zip file, a folder that is missing
            names = os.listdir(folder or ".")
        for name in sorted(names):
            found = _INSTALLED.fullmatch(name)
            if found and (normal := re.sub(r"[-_.]+", "-", found[1]).lower()) not in seen:
                seen.add(normal)
                yield normal, found[2]


def _cpu() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return found[1] if found else platform.processor()
    return platform.processor()


def _gpu() -> str:
    models = set()
    for file in _NVIDIA.glob("gpus/*/information"):
        with suppress(OSError):
            found = re.search(r"^Model:\s*(.+)$", file.read_text(), re.MULTILINE)
            models.update([found[1].strip()] if found else [])
    return ", ".join(sorted(models))


def _driver() -> str:
    with suppress(OSError):
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", (_NVIDIA / "version").read_text())
        return found[1] if found else ""
    return ""
