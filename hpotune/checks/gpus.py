"""The GPUs of this machine, found without torch, and their assignment to workers by CUDA_VISIBLE_DEVICES; and whether
this cluster has the GPUs that a study names."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from hpotune.checks.finding import Finding
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError, HpotuneError, StudyFileError
from hpotune.slurm.partitions import partitions_of, query_partitions, spelled_here, unknown_type

ANSWER_S = 60
"""Timeout of nvidia-smi; with many GPUs and without persistence daemon it takes tens of seconds."""
SINFO_S = 10.0
"""Timeout of sinfo."""


def visible_gpus(env: Mapping[str, str]) -> list[str]:
    """Numbers or UUIDs of the GPUs that a process on this machine may use; empty without GPUs or nvidia-smi."""
    named = env.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        try:
            return [str(number) for number, _ in enumerate(gpu_lines())]
        except HpotuneError:
            return []
    found = []
    for name in (part.strip() for part in named.split(",")):
        if not name or name.startswith("-") or name == "NoDevFiles":
            break  # CUDA also ignores everything after the first invalid entry
        found.append(name)
    return found


def gpu_lines() -> list[str]:
    """The lines of `nvidia-smi -L`, one per GPU.

    Raises: HpotuneError if nvidia-smi is missing, hangs or fails.
    """
    try:
        answer = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=ANSWER_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise HpotuneError(f"nvidia-smi did not answer within {ANSWER_S} s") from None
    except OSError as error:
        raise HpotuneError(f"nvidia-smi cannot be run ({error.strerror})") from None
    if answer.returncode:
        raise HpotuneError(
            f"nvidia-smi failed: {(answer.stdout + answer.stderr).strip() or 'no reason given'}"
        )
    return [line for line in answer.stdout.splitlines() if line.startswith("GPU ")]


def gpu_groups(gpus: Sequence[str], *, each: int) -> list[str]:
    """Values of CUDA_VISIBLE_DEVICES for workers with `each` GPUs; empty without GPUs or if `each` is 0.

    Raises: StudyFileError if there are fewer GPUs than one worker needs.
    """
    if not gpus or not each:
        return []
    if len(gpus) < each:
        raise StudyFileError(
            f"resources.gpus={each}, and this machine has {len(gpus)} GPUs; write at most {len(gpus)}"
        )
    return [",".join(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)]


def most_gpus(config: StudyConfig) -> int | None:
    """The GPUs, of the study's type, of the largest node of its partitions; None where Slurm does not tell."""
    if shutil.which("sinfo") is None:
        return None
    try:
        found = query_partitions(answer_s=SINFO_S)
    except ClusterError:
        return None
    kind = spelled_here(config, found)
    counts = [
        count
        for name in partitions_of(config, found)
        for of, count in found[name].gpus.items()
        if kind in (None, of)
    ]
    return max(counts, default=None)


def gpu_type_findings(config: StudyConfig) -> Iterator[Finding]:
    """A warning for a GPU type that this cluster does not have, or spells otherwise; nothing where Slurm is silent."""
    asked, key = config.resources.gpu_type, ("resources", "gpus")
    if asked is None or shutil.which("sinfo") is None:
        return
    try:
        found = query_partitions(answer_s=SINFO_S)
    except ClusterError:
        return
    if text := unknown_type(config, found):
        yield Finding(kind="gpu", level="note", key=key, text=text, advice="`submit` will refuse it here")
        return
    spelled = spelled_here(config, found)
    if spelled not in (None, asked):
        text = f"resources.gpus={config.resources.gpus!r}: the type is {spelled!r} on this cluster"
        yield Finding(kind="gpu", level="note", key=key, text=text, advice="jobs are submitted with that")
