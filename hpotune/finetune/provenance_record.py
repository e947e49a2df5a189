"""The provenance of a fine-tuning trial, written by rank 0: at its start, and at its end with what it read.

Models and data are hashed in a thread while the trial runs, once a study; SHA-256 does not hold Python's lock.
"""

from __future__ import annotations

import hashlib
import os
import threading
from array import array
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hpotune.finetune.scoring.task_requests import BuiltTasks, request_text
from hpotune.finetune.training.loss import Row
from hpotune.records.trial import TrialSpec
from hpotune.workspace.origin.content import Content
from hpotune.workspace.origin.trial_provenance import (
    contents_of,
    first_provenance,
    study_of,
    write_trial_provenance,
)

PATIENCE_S = 60.0
"""How long a trial that is otherwise done waits for the hash of a large model; a later trial goes on with it."""


class ProvenanceRecord:
    """Writes provenance.json of one trial."""

    def __init__(
        self, spec: TrialSpec, *, ranks: int, earlier_trials: int = 0, env: Mapping[str, str] = os.environ
    ) -> None:
        self._spec = spec
        first = first_provenance(spec, env=env)
        self._first = replace(first, ranks=ranks, earlier_trials=earlier_trials)
        self._contents: dict[str, Content] = {}
        self._thread = threading.Thread(target=self._hash, daemon=True)

    def start(self) -> None:
        """Write what is known, and begin to read model and data."""
        write_trial_provenance(Path(self._spec.folder), self._first)
        self._thread.start()

    def finish(self, inputs: Mapping[str, str], *, energy_wh: float | None) -> None:
        """Write it again with what the trial was given; contents that take longer than PATIENCE_S are left out."""
        self._thread.join(PATIENCE_S)
        done = replace(self._first, contents=dict(self._contents), inputs=dict(inputs), energy_wh=energy_wh)
        write_trial_provenance(Path(self._spec.folder), done)

    def _hash(self) -> None:
        with suppress(OSError):  # as if it were not known
            self._contents.update(contents_of(self._spec, study=study_of(self._spec)))


def rows_hash(*parts: Iterable[Row]) -> str:
    """SHA-256 of the tokens and targets of rows, wherever they came from."""
    digest = hashlib.sha256()
    for rows in parts:
        for row in rows:
            digest.update(array("q", [len(row.ids), len(row.targets), *row.ids, *row.targets]).tobytes())
            if row.classes is not None:
                digest.update(array("q", [len(row.classes), *row.classes]).tobytes())
            if row.number is not None:
                digest.update(array("d", [row.number]).tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def request_hashes(built: BuiltTasks) -> dict[str, str]:
    """SHA-256 of the requests of each task that is scored, in their order: prompts, answers, settings."""
    found = {}
    for name, requests in built.requests():
        digest = hashlib.sha256()
        for request in requests:
            digest.update(f"{request.request_type}\0{request.doc_id}\0{request_text(request)!r}\n".encode())
        found[name] = digest.hexdigest()
    return found
