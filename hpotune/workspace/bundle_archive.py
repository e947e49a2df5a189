"""The tar file of a bundle: written whole or not at all, unpacked only if every file has the hash of its manifest.

The manifest is the last member, since the hashes are taken while the files are written.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import ValidationError

from hpotune.errors import HpotuneError, StudyFileError
from hpotune.records.bundle_record import MANIFEST, BundleFile, BundleManifest
from hpotune.workspace.atomic_files import make_scratch_folder

BLOCK = 2**20
PER_FILE = 1536
"""Bytes of a tar file for each of its members, besides the content: the header, and what fills the last block."""
Show = Callable[[int, int], None]
"""Called with bytes that are done, and all bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedFile:
    """A file that goes into a bundle."""

    source: Path | bytes
    """A file of this machine, or the content."""
    sha256: str | None = None
    """The hash that it must have; None: it is not known."""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


def check_room(folder: Path, size: int, *, what: str) -> int:
    """The free bytes of the disk of a folder.

    Raises: HpotuneError where there are fewer than `size`.
    """
    free = shutil.disk_usage(next(one for one in (folder, *folder.absolute().parents) if one.exists())).free
    if free < size:
        raise HpotuneError(
            f"{folder}: has {free / 1e9:.2f} GB free, and {what} needs {size / 1e9:.2f} GB; free space, or name another"
            " disk"
        )
    return free


def write_bundle(
    target: Path, files: Mapping[str, PackedFile], manifest: BundleManifest, *, show: Show
) -> BundleManifest:
    """Write the tar file under a temporary name, then move it; returns the manifest with the files and their hashes.

    Raises: HpotuneError where a file is not what it should be or cannot be read, or the disk is full.
    """
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    total, done = sum(one.size for one in files.values()), 0
    packed: list[BundleFile] = []
    try:
        with unfinished.open("xb") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
            for name, one in sorted(files.items()):
                packed.append(_add(tar, f"{manifest.study}/{name}", name, one))
                done += packed[-1].size
                show(done, total)
            manifest = manifest.model_copy(update={"files": packed})
            text = (manifest.model_dump_json(indent=1) + "\n").encode()
            _add(tar, f"{manifest.study}/{MANIFEST}", MANIFEST, PackedFile(source=text))
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(unfinished, target)
    except OSError as error:
        raise HpotuneError(
            f"{error.filename or target}: cannot be packed ({error.strerror or error})"
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)
    return manifest


def _add(tar: tarfile.TarFile, member: str, name: str, one: PackedFile) -> BundleFile:
    """Add a file; what is written of it is what is hashed."""
    info = tarfile.TarInfo(member)
    info.mode = 0o644
    if isinstance(one.source, Path):
        found = one.source.stat()
        info.size, info.mtime = found.st_size, int(found.st_mtime)
        info.mode |= 0o111 if found.st_mode & 0o100 else 0
        with one.source.open("rb") as stream:
            digest = _Hashed(stream)
            tar.addfile(info, digest)
    else:
        info.size = len(one.source)
        digest = _Hashed(io.BytesIO(one.source))
        tar.addfile(info, digest)
    if one.sha256 is not None and digest.hexdigest() != one.sha256:
        raise HpotuneError(
            f"{name}: is damaged: its SHA-256 is {digest.hexdigest()[:12]}… and was fetched as "
            f"{one.sha256[:12]}…; run hpotune fetch again"
        )
    return BundleFile(path=name, size=info.size, sha256=digest.hexdigest())


class _Hashed:
    """A stream that hashes what is read of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self._digest.update(block)
        return block

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def unpack_bundle(
    file: Path, folder: Path, *, show: Show, finish: Callable[[Path, BundleManifest], None]
) -> BundleManifest:
    """Unpack into a folder that is new or empty, once every file has the hash of the manifest; returns the manifest.

    `finish` is called with the unfinished folder, before it gets its name.
    Raises: StudyFileError for a folder that holds anything; HpotuneError for a file that is no bundle, cut or damaged.
    Then nothing is left.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyFileError(f"{folder}: is there already; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = make_scratch_folder(folder.absolute())
    try:
        manifest = _extracted(file, scratch, show=show)
        finish(scratch, manifest)
        os.rename(scratch, folder)
    except tarfile.TarError as error:
        raise HpotuneError(f"{file}: is no bundle, or was cut: {error}; copy it again") from None
    except OSError as error:
        raise HpotuneError(f"{error.filename or file}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def _extracted(file: Path, folder: Path, *, show: Show) -> BundleManifest:
    total, hashes = file.stat().st_size, dict[str, tuple[int, str]]()
    with tarfile.open(file, mode="r:") as tar:
        for member in tar:
            name = _safe_name(member, file)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = tar.extractfile(member)
            assert stream is not None, "a regular file has content"
            hashed = _Hashed(stream)
            with target.open("xb") as out:
                while block := hashed.read(BLOCK):
                    out.write(block)
            if member.mode & 0o100:
                target.chmod(target.stat().st_mode | 0o111)
            hashes[name] = target.stat().st_size, hashed.hexdigest()
            show(member.offset_data + member.size, total)
    hashes.pop(MANIFEST, None)
    try:
        manifest = BundleManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise HpotuneError(f"{file}: is no bundle of hpotune, or was cut: it has no {MANIFEST}") from None
    except ValidationError:
        raise HpotuneError(f"{file}: {MANIFEST} is damaged, or of a newer hpotune; copy it again") from None
    named = {one.path: (one.size, one.sha256) for one in manifest.files}
    wrong = [name for name in sorted({*named, *hashes}) if named.get(name) != hashes.get(name)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise HpotuneError(
            f"{file}: {wrong[0]}{more} is not what was packed; the bundle is damaged: copy it again"
        )
    return manifest


def _safe_name(member: tarfile.TarInfo, file: Path) -> str:
    """The name inside the bundle's folder.

    Raises: HpotuneError for anything but a regular file below it: nothing may be written elsewhere.
    """
    parts = PurePosixPath(member.name).parts
    if not member.isreg() or len(parts) < 2 or member.name.startswith("/") or ".." in parts:
        raise HpotuneError(f"{file}: holds {member.name!r}, which no bundle of hpotune holds")
    return "/".join(parts[1:])
