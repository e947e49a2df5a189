from __future__ import annotations

import pytest

from hpotune.finetune.distributed.ranks import Place, first_host, place

STEP = {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[7-8]",
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0",
}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "2900"}


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("n1", "n1"),
        ("n[3-5,8],m1", "n3"),
        ("m1,n[2-4]", "m1"),
        ("r[01-02]c[7,9]", "r01c7"),
        ("gpu-a[010-012]", "gpu-a010"),
    ],
)
def test_the_first_host_of_a_node_list_is_read_without_scontrol(nodelist, host):
    assert first_host(nodelist) == host


def test_a_step_with_several_tasks_gives_slurms_ranks():
    found = place(STEP, number=5)
    assert (found.rank, found.world_size, found.local_rank, found.address) == (3, 4, 1, "n7")
    assert 15_000 <= found.port < 30_000


def test_two_trials_of_a_job_meet_at_different_ports():
    assert place(STEP, number=5).port != place(STEP, number=6).port
    assert place(STEP, number=5).port == place(STEP | {"SLURM_PROCID": "0"}, number=5).port


def test_torchrun_wins_over_slurm():
    assert place(STEP | TORCHRUN, number=0) == Place(
        rank=1, world_size=2, local_rank=1, address="here", port=2900
    )


def test_leaked_variables_are_not_believed():
    assert place(STEP | TORCHRUN | {"HPOTUNE_RANKS": "single"}, number=0) == Place()
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
    assert place(batch_script, number=0) == Place()


def test_the_launcher_can_be_named():
    assert place(STEP | TORCHRUN | {"HPOTUNE_RANKS": "slurm"}, number=0).world_size == 4
