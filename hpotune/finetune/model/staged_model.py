"""The copy of a trial's base model on the disk of its node (`env.stage`), and which files of the model are copied.

Tokenizer, checks and provenance read the original: they are small, and it is the original that is watched and named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.fetch.hub_files import model_files
from hpotune.finetune.model import hub
from hpotune.records.fetch_record import FetchFile
from hpotune.records.trial import TrialSpec
from hpotune.workspace.fetched_lock import VARIABLE, read_lock
from hpotune.workspace.origin.trial_provenance import study_of
from hpotune.workspace.staged_copies import NotStaged, Original, StagedCopy, stage_folder, staged_copy

_HELD: dict[Path, StagedCopy] = {}
"""The copies that this process uses until it ends: they are not removed meanwhile."""


def staged_model(
    spec: TrialSpec, *, warn: Callable[[str], None], env: Mapping[str, str] = os.environ
) -> Path | None:
    """The folder of the copy from which the base model is loaded; None: the original is to be loaded.

    Without `env.stage` there is none. Where it cannot be made, `warn` is called with the reason.
    """
    model = spec.point.model
    if spec.stage is None or model is None:
        return None
    try:
        root = stage_folder(spec.stage, env)
        copy = staged_copy(_original(model, env), root, study=study_of(spec))
    except NotStaged as why:
        warn(f"env.stage: the base model is read from where it is, not from {spec.stage}: {why}")
        return None
    if copy.seconds is not None:
        size = f"{copy.size / 1e9:.2f} GB"
        sys.stderr.write(f"copied {size} of {model.path} to {copy.folder} in {copy.seconds:.1f} s\n")
    if copy.folder in _HELD:
        copy.use.close()
    else:
        _HELD[copy.folder] = copy
    return copy.folder


def _original(model: ModelConfig, env: Mapping[str, str]) -> Original:
    """The files that loading the base model reads: config, weights, code where it is trusted.

    Raises: NotStaged, OSError.
    """
    folder, name, commit = Path(hub.model_folder(model.path)).expanduser(), model.path, None
    if not folder.is_dir():
        config = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
        if not isinstance(config, str):
            raise NotStaged(f"{model.path} is not on this machine")
        folder = Path(config).parent
        commit = folder.name
        name = f"{model.path}@{commit}"
    else:
        name = str(folder.resolve())
    there = {str(one.relative_to(folder)): one for one in folder.rglob("*") if one.is_file()}
    sized = [FetchFile(path=path, size=file.stat().st_size) for path, file in there.items()]
    try:
        chosen = model_files(sized, weights=True, code=model.trust_remote_code)
    except ValueError as error:
        raise NotStaged(f"{model.path} {error}") from None
    return Original(
        name=name,
        files={one.path: there[one.path].resolve() for one in chosen},
        sha256=_fetched_hashes(model, commit, env),
    )


def _fetched_hashes(model: ModelConfig, commit: str | None, env: Mapping[str, str]) -> dict[str, str]:
    """Hashes of the files that `hpotune fetch` wrote down; none without it."""
    named = env.get(VARIABLE)
    lock = read_lock(Path(named)) if named and commit is not None else None
    item = lock.find("model", model.path, commit) if lock is not None else None
    return {file.path: file.sha256 for file in item.files if file.sha256 is not None} if item else {}
