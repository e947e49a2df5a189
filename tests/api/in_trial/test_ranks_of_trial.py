"""The rank of a process of a trial, by what torchrun, accelerate, srun and mpirun set."""

from __future__ import annotations

import pytest

from hpotune.api.in_trial.ranks_of_trial import rank_of, ranks_in

WORKER = {"SLURM_PROCID": "1", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "HPOTUNE_WORKER_TASK": "0.1"}


@pytest.mark.parametrize(
    ("env", "rank", "ranks"),
    [
        ({}, 0, 1),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, 3, 4),
        (WORKER, 0, 1),
        ({**WORKER, "RANK": "1", "WORLD_SIZE": "2"}, 1, 2),
        ({**WORKER, "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "4"}, 1, 4),
        ({"SLURM_PROCID": "0", "HPOTUNE_WORKER_TASK": "None.0"}, 0, 1),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, 2, 3),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, 1, 2),
    ],
)
def test_rank_by_launcher(env, rank, ranks):
    assert (rank_of(env), ranks_in(env)) == (rank, ranks)
