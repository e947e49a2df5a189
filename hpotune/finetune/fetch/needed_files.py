"""Which files of which repositories and buckets a study needs, of all its points together.

points -> models, tokenizers, datasets, tasks -> items with their files, those of one repository and revision merged
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from huggingface_hub import constants

from hpotune.config.lm_eval_tasks import task_index
from hpotune.config.schema.study_config import PointConfig, ScoreConfig
from hpotune.finetune.fetch.fetch_items import missing_bytes
from hpotune.finetune.fetch.hub_files import model_files, repository
from hpotune.finetune.fetch.s3_objects import in_cache, list_objects
from hpotune.finetune.model.hub import BUILDERS, local_path
from hpotune.finetune.trial_errors import UserError
from hpotune.records.fetch_record import FetchFile, FetchItem, FetchList, FetchSpec
from hpotune.workspace.fetched_lock import S3


@dataclass(kw_only=True, slots=True)
class Needed:
    """The items so far, and what cannot be fetched."""

    spec: FetchSpec
    items: dict[str, FetchItem] = field(default_factory=dict)
    mistakes: dict[str, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    listed: dict[str, tuple[str, list[FetchFile]]] = field(default_factory=dict)
    """Name of an item -> commit and all files of its repository."""
    buckets: dict[str, FetchItem] = field(default_factory=dict)
    """Address in S3 -> all objects there."""

    def repository(
        self, id_: str, kind: Literal["model", "dataset"], revision: str | None, key: str
    ) -> tuple[str, list[FetchFile]]:
        """The commit and all files; asked once. The commit of an earlier lock file is kept."""
        name = FetchItem(kind=kind, id=id_, revision=revision, commit="", files=[]).name
        if name not in self.listed:
            wanted = self.spec.commits.get(name, revision)
            self.listed[name] = repository(id_, kind=kind, revision=wanted, key=key)
        return self.listed[name]

    def add(self, item: FetchItem) -> None:
        """Add an item, or its files and keys to those of the same repository and revision."""
        before = self.items.get(item.name)
        if before is not None:
            files = {one.path: one for one in (*before.files, *item.files)}
            keys = dict.fromkeys((*before.keys, *item.keys))
            item = item.model_copy(update={"files": [files[path] for path in sorted(files)], "keys": [*keys]})
        self.items[item.name] = item

    def objects(self, url: str, key: str) -> FetchItem:
        """The objects of an address in S3; asked once, and not at all where those of an earlier lock file are whole."""
        known = self._fetched(url)
        if known is not None and not missing_bytes(known):
            return known.model_copy(update={"keys": [key]})
        if url not in self.buckets:
            self.buckets[url] = list_objects(url, key=key)
        return self.buckets[url].model_copy(update={"keys": [key]})

    def _fetched(self, url: str) -> FetchItem | None:
        return next((one for one in self.spec.objects if one.id == url), None)

    def cached(self, item: FetchItem) -> FetchItem:
        """The item of S3 with its folder, or as the earlier lock file has it, with its hashes."""
        known, now = self._fetched(item.id), in_cache(item, Path(self.spec.cache))
        if known is None:
            return now
        if {one.path for one in known.files} >= {one.path for one in now.files} and not missing_bytes(known):
            return known.model_copy(update={"keys": now.keys})
        if known.commit == now.commit:
            return now.model_copy(update={"files": known.files})
        self.mistakes[
            f"{item.keys[0]}: {item.id}: the objects have changed since they were fetched, and the fetched files are "
            "not complete; hpotune fetch --update takes the new ones"
        ] = None
        return now

    def attempt(self, action: Callable[[], None]) -> None:
        """Do the action; an error of it is a mistake of the study."""
        try:
            action()
        except UserError as error:
            self.mistakes[str(error)] = None


def list_needed(spec: FetchSpec) -> FetchList:
    """Everything that the points of the spec need and that is not a file on this machine."""
    needed = Needed(spec=spec)
    tasks: dict[str, None] = {}
    for point in spec.points:
        needed.attempt(partial(_add_model, point, needed))
        needed.attempt(partial(_add_tokenizer, point, needed))
        needed.attempt(partial(_add_data, point, needed))
    for score in {point.score.model_dump_json(): point.score for point in spec.points}.values():
        names = task_names(score)
        tasks |= dict.fromkeys(names)
        needed.attempt(partial(_add_tasks, names, score, needed))
    items = [needed.cached(item) if item.kind == "s3" else item for item in needed.items.values()]
    missing = [(item.kind, missing_bytes(item)) for item in items]
    return FetchList(
        items=items,
        tasks=[*tasks],
        hub=constants.HF_HUB_CACHE,
        missing=sum(size for _, size in missing),
        missing_objects=sum(size for kind, size in missing if kind == "s3"),
        mistakes=[*needed.mistakes],
        warnings=[*needed.warnings],
    )


def task_names(score: ScoreConfig) -> list[str]:
    """The lm-eval tasks of a `score` section: objectives, recorded ones, the sealed test."""
    index = task_index(score.include_path)
    recorded = [one.task for one in score.record if index is not None and index.exists(one.task)]
    objectives = [one.task for one in score.objective if one.task is not None]
    return [*dict.fromkeys([*objectives, *recorded, *(one.task for one in score.test)])]


def is_elsewhere(path: str, data_root: str | None = None) -> bool:
    """Whether a path of the study file is an id on the hub: no file, folder, package or address."""
    here = Path(path).expanduser().exists() or local_path(path, data_root) != path
    return not (here or path.startswith(("package:", S3)) or path.endswith(".gguf") or path in BUILDERS)


def _add_model(point: PointConfig, needed: Needed) -> None:
    model, key = point.model, "model.path"
    assert model is not None, "only fine-tuning is fetched for"
    if model.path.startswith(S3):
        item = needed.objects(model.path, key)
        if item.is_file and not model.path.endswith(".gguf"):
            raise UserError(
                f"{key}: {model.path} is one object; name the prefix that holds config.json, or a .gguf"
            )
        needed.add(item if item.is_file else _chosen(item, code=model.trust_remote_code))
    elif is_elsewhere(model.path):
        commit, files = needed.repository(model.path, "model", model.revision, key)
        item = FetchItem(
            kind="model", id=model.path, revision=model.revision, commit=commit, files=files, keys=[key]
        )
        needed.add(_chosen(item, code=model.trust_remote_code))


def _chosen(item: FetchItem, *, code: bool, weights: bool = True) -> FetchItem:
    """The item with those of its files that a trial reads."""
    try:
        return item.model_copy(update={"files": model_files(item.files, weights=weights, code=code)})
    except ValueError as error:
        raise UserError(f"{item.keys[0]}: {item.id} {error}") from None


def _add_tokenizer(point: PointConfig, needed: Needed) -> None:
    assert point.model is not None, "only fine-tuning is fetched for"
    path, key, code = point.model.tokenizer, "model.tokenizer", point.model.trust_remote_code
    if path is None:
        return
    if path.startswith(S3):
        item = needed.objects(path, key)
        needed.add(_chosen(item, code=code, weights=False))
    elif is_elsewhere(path):
        commit, files = needed.repository(path, "model", None, key)
        item = FetchItem(kind="model", id=path, commit=commit, files=files, keys=[key])
        needed.add(_chosen(item, code=code, weights=False))


def _add_data(point: PointConfig, needed: Needed) -> None:
    for name, data in point.data.sources.items() if point.data is not None else ():
        key = f"data.mixture.{name}.path" if name else "data.path"
        if data.path.startswith(S3):
            needed.add(needed.objects(data.path, key))
        elif is_elsewhere(data.path, needed.spec.data_root):
            _add_dataset(data.path, data.name, data.revision, {}, key, needed)


def _add_tasks(names: Sequence[str], score: ScoreConfig, needed: Needed) -> None:
    if not names:
        return
    from hpotune.finetune.fetch.task_datasets import task_datasets  # imports lm_eval and torch
    from hpotune.finetune.scoring.task_loading import DataFolders

    folders = DataFolders(home=needed.spec.home, data_root=needed.spec.data_root)
    listed = task_datasets(names, score=score, folders=folders)
    needed.warnings |= dict.fromkeys(listed.warnings)
    for one in listed.found:
        needed.attempt(partial(_add_dataset, one.path, one.name, one.revision, one.options, one.key, needed))


def _add_dataset(
    path: str, name: str | None, revision: str | None, options: object, key: str, needed: Needed
) -> None:
    from hpotune.finetune.fetch.dataset_files import dataset_files  # imports datasets

    assert isinstance(options, dict), "the arguments of load_dataset"
    commit, files = needed.repository(path, "dataset", revision, key)
    read = dataset_files(path, name, commit=commit, files=files, options=options, key=key)
    needed.add(FetchItem(kind="dataset", id=path, revision=revision, commit=commit, files=read, keys=[key]))
