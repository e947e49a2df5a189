"""`hpotune fetch`: what a study needs of hubs and S3 is listed, downloaded and verified in a process of its own.

Study -> points at the corners -> `python -m hpotune.finetune.fetch list` -> sizes, which the user agrees to
      -> `… download` -> fetched.lock.json in the study's folder
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from hpotune.config.corners import corner_points
from hpotune.config.lm_eval_tasks import cache_folder
from hpotune.config.load import Study
from hpotune.config.ownership import check_cache
from hpotune.config.schema.study_config import PointConfig
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.records.fetch_record import FetchedLock, FetchList, FetchProgress, FetchSpec
from hpotune.workspace.fetched_lock import lock_file, read_lock, write_lock
from hpotune.workspace.folder import StudyFolder, home_of

LIBRARIES = ("hpotune", "huggingface_hub", "datasets", "lm_eval")
Show = Callable[[FetchProgress], None]


def list_files(study: Study, folder: StudyFolder, *, update: bool, show: Show) -> FetchList:
    """What the study needs, with the commits of an earlier lock file unless `update`.

    Raises: StudyFileError with every model, dataset and task that cannot be fetched; HpotuneError.
    """
    config, env = study.config, _environment(study)
    if config.model is None:  # a function or command fetches what it reads itself
        return FetchList()
    if update and any((folder.path / "trials").glob("*")):
        raise StudyFileError(
            f"--update: {folder.path} has trials of the commits in its lock file, and others could not be compared "
            "with them; rename the study (name:)"
        )
    before = read_lock(lock_file(folder.path))
    cache = cache_folder(env)
    check_cache(cache)
    spec = FetchSpec(
        points=study_points(study),
        home=str(home_of(study.source.path)),
        data_root=config.data_root,
        cache=str(cache.absolute()),
        objects=[] if update or before is None else [one for one in before.items if one.kind == "s3"],
        commits={} if update or before is None else {one.name: one.commit for one in before.items},
    )
    found = _run("list", spec, study, show=show)
    if found.mistakes:
        raise StudyFileError(*found.mistakes)
    return found


def download(found: FetchList, study: Study, folder: StudyFolder, *, show: Show) -> FetchedLock:
    """Fetch and verify the files, and write the lock file into the study's folder.

    Raises: HpotuneError for what could not be fetched; nothing of it is lost, and the lock file stays as it was.
    """
    done = _run("download", found, study, show=show)
    if done.mistakes:
        raise HpotuneError("\n".join(done.mistakes))
    lock = FetchedLock(
        fetched=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={name: version for name in LIBRARIES if (version := _version(name))},
        items=done.items,
        tasks=done.tasks,
    )
    write_lock(folder.path, lock)
    return lock


def check_space(found: FetchList, study: Study) -> dict[str, int]:
    """Free bytes of the disk of each cache that files are fetched into.

    Raises: HpotuneError where they are fewer than what is missing there.
    """
    needed: dict[str, int] = {}
    if any(one.kind != "s3" for one in found.items):
        needed[found.hub] = found.missing - found.missing_objects
    if any(one.kind == "s3" for one in found.items):
        needed[str(cache_folder(_environment(study)))] = found.missing_objects
    folders = {cache: _existing(Path(cache)) for cache in needed}
    free = {cache: shutil.disk_usage(folder).free for cache, folder in folders.items()}
    for cache, folder in folders.items():
        disk = folder.stat().st_dev
        here = sum(size for other, size in needed.items() if folders[other].stat().st_dev == disk)
        if free[cache] < here:
            variable = "HF_HOME" if cache == found.hub else "HPOTUNE_CACHE"
            raise HpotuneError(
                f"{cache}: has {free[cache] / 1e9:.1f} GB free, and {here / 1e9:.1f} GB are missing; free space, or "
                f"set {variable} to a larger disk (in your shell and in env.vars)"
            )
    return free


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def study_points(study: Study) -> list[PointConfig]:
    """The points that name every model, dataset and task; those that cannot be built are left out."""
    points: dict[str, PointConfig] = {}
    for drawn in ({}, *corner_points(study.space)):
        try:
            point = study.point(drawn) if drawn else study.base()
        except ValueError:
            continue  # the search does not draw it either
        points.setdefault(point.model_dump_json(include={"model", "data", "score"}), point)
    return list(points.values())


def _environment(study: Study) -> dict[str, str]:
    """That of the study's trials, with the hub switched on."""
    off = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    env = {key: value for key, value in {**os.environ, **study.config.env.vars}.items() if key not in off}
    return {**env, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONSAFEPATH": "1"}


def _run(verb: str, given: FetchSpec | FetchList, study: Study, *, show: Show) -> FetchList:
    """The result of the process, which ends when this one does.

    Raises: HpotuneError.
    """
    venv = study.config.env.venv
    python = sys.executable if venv in ("auto", None) else f"{venv}/bin/python"
    with tempfile.TemporaryDirectory(prefix="hpotune-fetch-") as folder:
        spec, written, log = (Path(folder, name) for name in ("given.json", "result.json", "log.txt"))
        spec.write_text(given.model_dump_json(), encoding="utf-8")
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [python, "-m", "hpotune.finetune.fetch", verb, str(spec), str(written)],
                env=_environment(study),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                assert process.stdout is not None, "opened with a pipe"
                for line in process.stdout:
                    show(FetchProgress.model_validate_json(line))
                process.wait()
            finally:
                process.kill()
                process.wait()
        if not written.is_file():
            raise HpotuneError(_died(process.returncode, log))
        return FetchList.model_validate_json(written.read_text(encoding="utf-8"))


def _died(code: int, log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    missing = "No module named" in last
    advice = "; pip install 'hpotune[trial]'" if missing else "; run hpotune fetch again, it continues"
    return f"the process that fetches ended with exit code {code}: {last}{advice}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
