"""`hpotune bundle --unpack`: a bundle becomes a folder from which its study runs, once every file is verified."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from hpotune.config.yaml_source import Value, read_source, write_yaml
from hpotune.errors import HpotuneError
from hpotune.records.bundle_record import HUB, BundleManifest
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.bundle_archive import Show, check_room, unpack_bundle
from hpotune.workspace.fetched_lock import FILE as LOCK
from hpotune.workspace.fetched_lock import read_lock, write_lock

REMARK = (
    "# Written by `hpotune bundle --unpack`; hpotune-bundle/original.yaml is the file that was bundled.\n"
)


def unpack(file: Path, folder: Path | None, *, show: Show) -> tuple[Path, BundleManifest]:
    """The study file of the unpacked bundle, and its manifest. `folder`: None: the bundle's name, beside nothing else.

    Raises: StudyFileError, HpotuneError; then nothing is left.
    """
    if not file.is_file():
        raise HpotuneError(f"{file}: is no file; name the bundle that `hpotune bundle STUDY` wrote")
    target = (folder if folder is not None else Path(file.name.removesuffix(".tar"))).absolute()
    check_room(target.parent, file.stat().st_size, what="the bundle")

    def finish(scratch: Path, manifest: BundleManifest) -> None:
        written = scratch / manifest.study_file
        if (scratch / HUB).is_dir():
            values = _with_hub(read_source(written).values, target / HUB)
            write_atomic(written, REMARK + write_yaml(values))
        _locate_objects(scratch / manifest.study, target)

    manifest = unpack_bundle(file, target, show=show, finish=finish)
    return target / manifest.study_file, manifest


def _with_hub(values: Mapping[str, Value], hub: Path) -> dict[str, Value]:
    """The study file whose jobs read this cache of the hub: its path is absolute, as huggingface_hub needs it."""
    env: Any = values.get("env") or {}
    variables = {**env.get("vars", {}), "HF_HUB_CACHE": str(hub)}
    return {**values, "env": {**env, "vars": variables}}


def _locate_objects(folder: Path, target: Path) -> None:
    """Write into the lock file where the objects of S3 will lie."""
    file = folder / LOCK
    lock = read_lock(file if file.is_file() else None)
    if lock is None or all(item.folder is None for item in lock.items):
        return
    items = [
        item.model_copy(update={"folder": str(target / item.folder)}) if item.folder is not None else item
        for item in lock.items
    ]
    write_lock(folder, lock.model_copy(update={"items": items}))


def version_notes(manifest: BundleManifest) -> list[str]:
    """A line for each library that has another version here, or is missing."""
    found = []
    for library, version in manifest.versions.items():
        try:
            here = metadata.version(library)
        except metadata.PackageNotFoundError:
            found.append(f"{library} {version} is not installed here")
            continue
        if here != version:
            found.append(f"{library} is {here} here, and was {version} where the bundle was made")
    return found
