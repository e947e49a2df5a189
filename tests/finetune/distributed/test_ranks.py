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
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "here",
    "MASTER_PORT": "2900",
    "TORCHELASTIC_RUN_ID": "a/b",
}


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
    info = read_rank_info(STEP)
    assert (info.rank, info.world_size, info.local_rank, info.host) == (3, 4, 1, "n7")


def test_ranks_of_one_node_use_loopback():
    assert read_rank_info(STEP | {"SLURM_STEP_NODELIST": "n7"}).host == "127.0.0.1"
    assert read_rank_info(TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}).host == "127.0.0.1"


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"])
def test_each_start_is_another_attempt(name):
    assert read_rank_info(STEP | {"SLURM_PROCID": "0"}).attempt == read_rank_info(STEP).attempt
    assert read_rank_info(STEP | {name: "31"}).attempt != read_rank_info(STEP).attempt


def test_torchrun_overrides_slurm():
    assert read_rank_info(STEP | TORCHRUN) == RankInfo(
        rank=1, world_size=2, local_rank=1, host="here", attempt="a_b.0"
    )


def test_inherited_slurm_variables_are_ignored():
    assert read_rank_info(STEP | TORCHRUN | {"HPOTUNE_RANKS": "single"}) == RankInfo()
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
    assert read_rank_info(batch_script) == RankInfo()


def test_launcher_can_be_named():
    assert read_rank_info(STEP | TORCHRUN | {"HPOTUNE_RANKS": "slurm"}).world_size == 4
