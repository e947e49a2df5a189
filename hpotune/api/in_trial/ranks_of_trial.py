"""Which rank of the trial this process is, by the variables of torchrun, accelerate, srun and mpirun."""

from __future__ import annotations

from collections.abc import Mapping

_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def rank_of(env: Mapping[str, str]) -> int:
    """This process's rank; 0 where it is alone.

    Slurm's rank counts only in a step that the trial itself started: a worker's own task is inherited by its trial.
    """
    for name in _RANKS:
        if (rank := _number(env, name)) is not None:
            return rank
    if _in_own_step(env):
        return _number(env, "SLURM_PROCID") or 0
    return _number(env, "LOCAL_RANK") or 0


def ranks_in(env: Mapping[str, str]) -> int:
    """The number of ranks; 1 where this process is alone."""
    for name in _SIZES:
        if (size := _number(env, name)) is not None:
            return size
    if _in_own_step(env):
        return _number(env, "SLURM_STEP_NUM_TASKS") or _number(env, "SLURM_NTASKS") or 1
    return _number(env, "LOCAL_WORLD_SIZE") or 1


def _in_own_step(env: Mapping[str, str]) -> bool:
    if "SLURM_PROCID" not in env or "SLURM_STEP_ID" not in env:
        return False
    return env.get("HPOTUNE_WORKER_TASK") != f"{env['SLURM_STEP_ID']}.{env['SLURM_PROCID']}"


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "")
    return int(text) if text.isdigit() else None
