"""What a rank process keeps between trials: base model, tokenizer, tokenized rows, requests and their tokens.

Rows and requests are kept by all that they depend on, and handed out again only while their hash is that of the first
time. What may not be kept is built anew by the functions that a cold trial uses.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import transformers

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.data.prepared_rows import TokenizedSplit
from hpotune.finetune.data.token_file import StoredRows
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model import hub
from hpotune.finetune.model.base_model import BaseModel, load_tokenizer
from hpotune.finetune.provenance_record import request_hashes, rows_hash
from hpotune.finetune.scoring.request_tokens import KeptTokens
from hpotune.finetune.scoring.task_requests import BuiltTasks
from hpotune.finetune.warm.base_shares import BaseShares
from hpotune.finetune.warm.process_state import ProcessState
from hpotune.finetune.warm.shared_base import SharedBase, is_shareable
from hpotune.finetune.warm.watched_files import WatchedFiles
from hpotune.records.trial import TrialSpec

T = TypeVar("T")
AT_MOST = 4
"""Rows, or requests, of so many different settings (rungs, prompts) are kept."""


@dataclass(kw_only=True)
class Kept:
    """The things of one process, all of one base model and one study. Each of several ranks has its own."""

    state: ProcessState
    files: WatchedFiles
    ranks: Ranks | None = None
    """The several ranks that have met; None: there is one, which meets none."""
    tokens: KeptTokens = field(default_factory=dict)
    trials: int = 0
    """Trials that have ended in this process."""
    spoiled: str | None = None
    """Why the process must end after its trial; None: it may go on."""
    _of: str | None = None
    _base: SharedBase | None = None
    _shares: BaseShares | None = None
    _tokenizer: transformers.PreTrainedTokenizerBase | None = None
    _rows: dict[str, tuple[TokenizedSplit, str]] = field(default_factory=dict)
    _model_warnings: dict[str, list[str]] = field(default_factory=dict)
    _requests: dict[str, tuple[BuiltTasks, dict[str, str]]] = field(default_factory=dict)

    def why_cold(self, spec: TrialSpec) -> str | None:
        """Why a trial must not run in this process; None: it may."""
        if self._of is not None and self._of != _identity(spec):
            return "it has another base model or code"
        changed = self.files.changed()
        return f"{changed} has changed" if changed else None

    def begin(self, spec: TrialSpec) -> None:
        """Note what the first trial is of."""
        if self._of is None:
            self._of = _identity(spec)
            assert spec.point.model is not None, "a fine-tuning trial has a model"
            named = (spec.point.model.path, spec.point.model.tokenizer, spec.point.score.include_path)
            for folder in (Path(hub.model_folder(one)).expanduser() for one in named if one):
                if folder.exists():
                    self.files.add(folder)

    def end(self, spec: TrialSpec) -> str | None:
        """Why the process must not run another trial; None: it may, and the base model is proved to be untouched."""
        self.trials += 1
        model = spec.point.model
        if model is not None and model.trust_remote_code:
            return "the model has code of its own"
        if (own := self.files.own_code()) is not None:
            return f"a task has code of its own ({own})"
        if self._base is not None and not self._base.is_untouched():
            return "it changed the base model"
        return self.spoiled or self.state.difference()

    def tokenizer(self, config: ModelConfig) -> transformers.PreTrainedTokenizerBase:
        """A copy of the tokenizer, as it was loaded."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(config)
        return copy.deepcopy(self._tokenizer)

    def rows(self, key: str) -> TokenizedSplit | None:
        """The tokenized rows of a key; None: they are not kept, or were changed."""
        found = self._rows.get(key)
        return found[0] if found is not None and _rows_hash(found[0]) == found[1] else None

    def keep_rows(self, key: str, split: TokenizedSplit) -> None:
        """Keep them with their hash."""
        _put(self._rows, key, (split, _rows_hash(split)))

    def model_warnings(self, key: str, check: Callable[[], list[str]]) -> list[str]:
        """The warnings of a check of model, rows and adapter that raised nothing; it is repeated where it did."""
        if key not in self._model_warnings:
            _put(self._model_warnings, key, check())
        return self._model_warnings[key]

    def requests(self, key: str, build: Callable[[], BuiltTasks], folder: str) -> BuiltTasks:
        """The requests of a key, built if they are not kept or were changed. `folder`: the trial's; not watched."""
        found = self._requests.get(key)
        if found is not None:
            found[0].set_generation({})  # as they were built; the last trial asked with its own settings
        if found is None or request_hashes(found[0]) != found[1]:
            with self.files.recording(except_in=(folder, str(hub.private_cache()))):
                built = build()
            found = built, request_hashes(built)
            _put(self._requests, key, found)
        return found[0]

    def fresh_base(self, load: Callable[[int], BaseModel], seed: int, *, own: bool) -> BaseModel:
        """Fresh modules of the base model; `own`: with weights that no other trial gets, loaded from disk."""
        if self.ranks is not None:
            return self._fresh_shares(load, seed, own=own)
        if own:
            self._base = None
            return load(seed)
        if self._base is not None and not self._base.is_untouched():
            self._base, self.spoiled = None, "it changed the base model"
        if self._base is None:
            loaded = load(seed)
            if self.spoiled or not is_shareable(loaded):
                return loaded
            self._base = SharedBase(loaded)
            self.state.watch(loaded.module)
        return self._base.fresh()

    def _fresh_shares(self, load: Callable[[int], BaseModel], seed: int, *, own: bool) -> BaseModel:
        """As `fresh_base`, of a base model that will be sharded."""
        if not own and self._shares is not None:
            return self._shares.fresh()
        loaded = load(seed)
        if own or not is_shareable(loaded):
            return loaded
        self._shares = BaseShares(loaded)
        self.state.watch(loaded.module)
        return replace(loaded, when_sharded=self._shares.keep)


def key_of(*facts: object) -> str:
    """A hash of what a kept thing depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _identity(spec: TrialSpec) -> str:
    named = (spec.study, spec.data_root, spec.offline, spec.home, spec.code, spec.sealed)
    return key_of(spec.point.model.model_dump(mode="json") if spec.point.model else None, *named)


def _rows_hash(split: TokenizedSplit) -> str:
    """What shows that the rows are as they were; those of a file are read again for each batch."""
    if isinstance(split.train.used, StoredRows):
        return split.train.used.file.stamp
    return rows_hash(split.train.rows, split.validation.rows)


def _put(kept: dict[str, T], key: str, value: T) -> None:
    while len(kept) >= AT_MOST:
        del kept[next(iter(kept))]
    kept[key] = value
