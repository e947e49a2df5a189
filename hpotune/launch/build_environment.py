"""`hpotune env create`: packages_to_install in a virtual environment beside the study, with a lock file of hashes.

The environment sees the packages of the one in which hpotune runs, and holds what that one lacks. NAME.env.lock.json
has exact versions and SHA-256; where it is, of the same requirements, the same files are installed again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from hpotune.config.built_environment import RECORD, environment_folder, is_whole
from hpotune.config.json_file import optional_object
from hpotune.config.load import Study
from hpotune.config.text.secret_text import masked
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.lock import exclusive_lock

BASE = "_hpotune_base.pth"
"""A line of site-packages: where the packages of hpotune's own environment are."""
Show = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedPackage:
    """A package that was installed into the environment."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An environment, whole."""

    folder: Path
    lock: Path
    packages: tuple[LockedPackage, ...]
    is_new: bool
    """False: it was there."""


def create_environment(study: Study, *, home: Path, show: Show) -> Built:
    """The environment of the study's packages, built if it is not there.

    Raises: StudyFileError for a study without packages; HpotuneError with pip's reason. Then nothing is left.
    """
    env = study.config.env
    if not env.packages_to_install:
        raise StudyFileError(
            f"{study.source.path}: has no env.packages_to_install; jobs run in the environment of env.venv"
        )
    folder = environment_folder(home, study.config.name, env.packages_to_install, env.index_urls)
    lock = lock_of(home, study.config.name)
    with exclusive_lock(folder.with_name(f".{folder.name}.lock")):
        if is_whole(folder):
            return Built(
                folder=folder, lock=lock, packages=_locked(lock, env.packages_to_install), is_new=False
            )
        shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed
        try:
            locked = _locked(lock, env.packages_to_install)
            packages = _build(folder, env.packages_to_install, env.index_urls, locked, show=show)
            found = [asdict(one) for one in packages]
            record = {
                "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "python": sys.version.split()[0],
                "requirements": env.packages_to_install,
                "pip_index_url": env.index_urls,
                "packages": found,
            }
            write_atomic(lock, json.dumps(record, indent=1) + "\n")
            write_atomic(folder / RECORD, json.dumps(record, indent=1) + "\n")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return Built(folder=folder, lock=lock, packages=packages, is_new=True)


def lock_of(home: Path, name: str) -> Path:
    """The lock file of a study's environment. `home`: the folder of the study file."""
    return home / f"{name}.env.lock.json"


def _locked(lock: Path, requirements: Sequence[str]) -> tuple[LockedPackage, ...]:
    """The packages of a lock file; none where there is none of these requirements and this version of Python."""
    record = optional_object(lock) or {}
    listed, python = record.get("packages"), str(record.get("python"))
    minor = f"{sys.version_info.major}.{sys.version_info.minor}."
    if record.get("requirements") != list(requirements) or not python.startswith(minor):
        return ()
    try:
        return tuple(LockedPackage(**one) for one in listed) if isinstance(listed, list) else ()
    except TypeError:
        return ()


def _build(
    folder: Path,
    requirements: Sequence[str],
    urls: Sequence[str],
    locked: Sequence[LockedPackage],
    *,
    show: Show,
) -> tuple[LockedPackage, ...]:
    """Make the environment and install; returns what pip installed."""
    show("making the environment")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], what="the environment cannot be made")
    python = str(folder / "bin" / "python")
    site = next(folder.glob("lib/python*/site-packages"))
    own = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / BASE).write_text("".join(f"import site; site.addsitedir({one!r})\n" for one in own))
    show(f"installing {', '.join(requirements)}")
    with tempfile.TemporaryDirectory(prefix="hpotune-env-") as scratch:
        report, wanted = Path(scratch, "report.json"), Path(scratch, "requirements.txt")
        lines = [f"{one.name}=={one.version} --hash=sha256:{one.sha256}" for one in locked] or requirements
        wanted.write_text("".join(f"{line}\n" for line in lines))
        options = [["--index-url", "--extra-index-url"][index > 0] for index in range(len(urls))]
        _run(
            [
                python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet",
                "--report", str(report), "-r", str(wanted),
                *(["--require-hashes", "--no-deps"] if locked else []),
                *(part for pair in zip(options, urls, strict=True) for part in pair),
            ],
            what="pip installed nothing",
        )  # fmt: skip
        installed = json.loads(report.read_text())["install"]
    return tuple(sorted(map(_package, installed), key=lambda one: one.name))


def _package(entry: dict[str, dict[str, object]]) -> LockedPackage:
    """A package of pip's report. Source: pip, "Installation Report", format 1."""
    archive = entry["download_info"].get("archive_info")
    hashes = archive.get("hashes") if isinstance(archive, dict) else None
    digest = hashes.get("sha256") if isinstance(hashes, dict) else None
    name, version = str(entry["metadata"]["name"]), str(entry["metadata"]["version"])
    if not isinstance(digest, str):
        raise HpotuneError(
            f"env.packages_to_install: {name} comes from a folder or repository, which has no hash; build a wheel of it"
        )
    return LockedPackage(name=name, version=version, sha256=digest)


def _run(command: Sequence[str], *, what: str) -> None:
    """Raises: HpotuneError with the reason in one line."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=env)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        reason = masked(errors[-1] if errors else f"exit code {done.returncode}")
        raise HpotuneError(f"env.packages_to_install: {what}: {reason}")
