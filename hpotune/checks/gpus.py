"""The GPUs of this machine, told without torch and dealt out to workers by CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from hpotune.errors import HpotuneError, StudyFileError

ANSWER_S = 60
"""How long nvidia-smi may take; with many GPUs and no persistence daemon it takes tens of seconds."""


def visible_gpus(env: Mapping[str, str]) -> list[str]:
    """Numbers or UUIDs of the GPUs that a process here may use; empty without any, or without nvidia-smi."""
    named = env.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        try:
            return [str(number) for number, _ in enumerate(gpu_lines())]
        except HpotuneError:
            return []
    found = []
    for name in (part.strip() for part in named.split(",")):
        if not name or name.startswith("-") or name == "NoDevFiles":
            break  # CUDA, too, reads no further than the first that is none
        found.append(name)
    return found


def gpu_lines() -> list[str]:
    """What `nvidia-smi -L` prints, a line a GPU.

    Raises: HpotuneError when it is not there, hangs or fails: a driver that is broken.
    """
    try:
        answer = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=ANSWER_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise HpotuneError(f"nvidia-smi gave no answer in {ANSWER_S} s") from None
    except OSError as error:
        raise HpotuneError(f"nvidia-smi cannot be run ({error.strerror})") from None
    if answer.returncode:
        raise HpotuneError(
            f"nvidia-smi failed: {(answer.stdout + answer.stderr).strip() or 'no reason given'}"
        )
    return [line for line in answer.stdout.splitlines() if line.startswith("GPU ")]


def deal(gpus: Sequence[str], *, each: int) -> list[str]:
    """Values of CUDA_VISIBLE_DEVICES, `each` GPUs a worker; empty where nothing is to be dealt.

    Raises: StudyFileError where there are GPUs, but fewer than one worker needs.
    """
    if not gpus or not each:
        return []
    if len(gpus) < each:
        raise StudyFileError(f"resources.gpus: {each}, but this machine shows {len(gpus)}; write that many")
    return [",".join(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)]
