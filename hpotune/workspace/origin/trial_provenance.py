"""provenance.json of a trial: environment, node, job, code, seeds, and the content of what it read.

The trial's own process writes it, of a command its worker: at the start, and again where more is known at the end. A
disk that is full costs the file, not the trial.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.records.trial import TrialSpec, slurm_job_id
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.origin.content import Content, content_of
from hpotune.workspace.origin.environment import this_environment, write_environment

FILE = "provenance.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialProvenance:
    """Where the numbers of a trial's last attempt come from."""

    environment: str = ""
    """Key of its Environment in the study's folder; empty: it could not be written."""
    host: str
    started: float
    """Unix seconds."""
    job: str | None = None
    """Slurm's JOB or ARRAY_ELEMENT; None outside Slurm."""
    partition: str | None = None
    ranks: int = 1
    """Processes that trained it."""
    earlier_trials: int = 0
    """Trials that its process ran before it; 0: it was the first of a new process."""
    threads: str | None = None
    """OMP_NUM_THREADS; it decides the order in which a processor adds numbers. None: not set."""
    gpus: str | None = None
    """CUDA_VISIBLE_DEVICES; None: not set."""
    code: str | None = None
    """The snapshot of the study's code; None: the study has no program of its own."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    contents: Mapping[str, Content] = field(default_factory=dict)
    """model, tokenizer, data -> what was read."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of what the model was given: `rows` (the tokens), each task's requests."""
    energy_wh: float | None = None
    """Of the GPUs from its start to its end, by NVML, whoever else used them; None: not measured."""


def first_provenance(spec: TrialSpec, *, env: Mapping[str, str]) -> TrialProvenance:
    """What is known before the trial starts, of this process."""
    environment = ""
    with suppress(OSError):
        environment = write_environment(study_of(spec), this_environment())
    return TrialProvenance(
        environment=environment,
        host=env.get("SLURMD_NODENAME") or platform.node(),
        started=time.time(),
        job=slurm_job_id(env),
        partition=env.get("SLURM_JOB_PARTITION"),
        threads=env.get("OMP_NUM_THREADS"),
        gpus=env.get("CUDA_VISIBLE_DEVICES"),
        code=spec.code,
        seeds=_seeds(spec),
    )


def record_first(spec: TrialSpec, *, env: Mapping[str, str] = os.environ) -> None:
    """Write what is known before the trial starts: all there is of a function or command."""
    write_trial_provenance(Path(spec.folder), first_provenance(spec, env=env))


def write_trial_provenance(folder: Path, provenance: TrialProvenance) -> None:
    """Write the file into the trial's folder; a failure is one line in the trial's log."""
    try:
        write_atomic(folder / FILE, json.dumps(asdict(provenance), indent=1) + "\n")
    except OSError as error:
        sys.stderr.write(f"warning: {folder / FILE} was not written ({error.strerror})\n")


def read_trial_provenance(folder: Path) -> TrialProvenance | None:
    """What a trial's file says; None where it is missing, damaged or of another form."""
    found = optional_object(folder / FILE)
    with suppress(TypeError, KeyError, AttributeError, ValueError):
        if found is not None:
            contents = {str(name): Content(**one) for name, one in found.pop("contents", {}).items()}
            known = {key: found[key] for key in TrialProvenance.__dataclass_fields__ if key in found}
            return replace(TrialProvenance(**known), contents=contents)
    return None


def study_of(spec: TrialSpec) -> Path:
    """The study's folder, in which trials/N and reruns/N-K lie; of a trial elsewhere its own folder."""
    folder = Path(spec.folder)
    return folder.parent.parent if folder.parent.name in ("trials", "reruns") else folder


def contents_of(spec: TrialSpec, *, study: Path, env: Mapping[str, str] = os.environ) -> dict[str, Content]:
    """The content of model, tokenizer and data of a fine-tuning trial; reads files that were not hashed before."""
    model, data = spec.point.model, spec.point.data
    found: dict[str, Content] = {}
    for name, one in data.sources.items() if data is not None else ():
        found[f"data {name}".strip()] = content_of(
            one.path,
            kind="datasets",
            revision=one.revision,
            data_root=spec.data_root,
            study=study,
            env=env,
        )
    if model is not None:
        if model.tokenizer is not None:
            found["tokenizer"] = content_of(
                model.tokenizer, kind="models", revision=None, data_root=None, study=study, env=env
            )
        found["model"] = content_of(
            model.path, kind="models", revision=model.revision, data_root=None, study=study, env=env
        )
    return found


def _seeds(spec: TrialSpec) -> dict[str, int]:
    seeds = {"training": spec.seed}
    own = spec.point.train.get("seed")
    if isinstance(own, int):
        seeds["training"] = own
    if spec.point.data is not None:
        seeds["data"] = spec.point.data.seed
    return seeds
