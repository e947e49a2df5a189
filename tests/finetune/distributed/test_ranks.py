from __future__ import annotations

import pytest

from hpotune.finetune.distributed.ranks import RankInfo, first_host, read_rank_info

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
def test_first_host_of_node_list(nodelist, host):
    assert first_host(nodelist) == host


def test_slurm_step_gives_ranks():
    info = read_rank_info(STEP, number=5)
    assert (info.rank, info.world_size, info.local_rank, info.address) == (3, 4, 1, "n7")
    assert 15_000 <= info.port < 30_000


def test_trials_of_job_use_different_ports():
    assert read_rank_info(STEP, number=5).port != read_rank_info(STEP, number=6).port
    assert read_rank_info(STEP, number=5).port == read_rank_info(STEP | {"SLURM_PROCID": "0"}, number=5).port


def test_torchrun_overrides_slurm():
    assert read_rank_info(STEP | TORCHRUN, number=0) == RankInfo(
        rank=1, world_size=2, local_rank=1, address="here", port=2900
    )


def test_inherited_slurm_variables_are_ignored():
    assert read_rank_info(STEP | TORCHRUN | {"HPOTUNE_RANKS": "single"}, number=0) == RankInfo()
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
    assert read_rank_info(batch_script, number=0) == RankInfo()


def test_launcher_can_be_named():
    assert read_rank_info(STEP | TORCHRUN | {"HPOTUNE_RANKS": "slurm"}, number=0).world_size == 4
