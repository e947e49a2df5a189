"""The command that starts a trial's ranks, for each way of starting them."""

from __future__ import annotations

import sys

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.worker.objective.finetune import rank_command

SPEC = ["/t/spec.json"]
IN_JOB = {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "64", "SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "64"}


def config(**sections: dict) -> StudyConfig:
    values = {
        "name": "s", "model": {"path": "m"}, "data": {"path": "d"}, "budget": {"trials": 1},
        "score": {"objective": [{"metric": "eval_loss"}]},
    }  # fmt: skip
    return StudyConfig.model_validate({**values, **sections})


@pytest.mark.parametrize("env", [{}, IN_JOB])
def test_one_rank_is_one_process(env):
    command, ours = rank_command(config(), SPEC, env)
    assert command == [sys.executable, "-m", "hpotune.finetune", "/t/spec.json"]
    assert ours["HPOTUNE_RANKS"] == "single"


def test_local_ranks_use_torchrun():
    command, ours = rank_command(config(resources={"processes": 2}), SPEC, {})
    assert command[1:3] == ["-m", "torch.distributed.run"]
    assert command[-4:] == ["--nproc-per-node=2", "-m", "hpotune.finetune", "/t/spec.json"]
    assert ours["HPOTUNE_RANKS"] == "torchrun"


def test_each_start_has_random_id():
    starts = [rank_command(config(resources={"processes": 2}), SPEC, {})[0] for _ in range(2)]
    ids = {part for command in starts for part in command if part.startswith("--rdzv-id=")}
    assert len(ids) == 2


def test_job_ranks_are_slurm_tasks():
    command, ours = rank_command(config(resources={"gpus": 4, "nodes": 2}), SPEC, IN_JOB)
    assert command[0] == "srun"
    assert {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4"} <= set(command)
    assert ours["HPOTUNE_RANKS"] == "slurm"


def test_step_variables_are_removed():
    _, ours = rank_command(config(resources={"gpus": 4}), SPEC, IN_JOB)
    assert not {"SLURM_NTASKS", "SLURM_CPUS_PER_TASK"} & ours.keys()
    assert ours["SLURM_JOB_ID"] == "7"


def test_ranks_share_node_cpus():
    assert rank_command(config(resources={"gpus": 4}), SPEC, IN_JOB)[1]["OMP_NUM_THREADS"] == "16"


def test_thread_number_of_user_wins():
    env = {**IN_JOB, "OMP_NUM_THREADS": "3"}
    assert rank_command(config(resources={"gpus": 4}), SPEC, env)[1]["OMP_NUM_THREADS"] == "3"


def test_ranks_run_in_container():
    command, _ = rank_command(config(env={"container": "c.sif"}), SPEC, {})
    assert command[:4] == ["apptainer", "exec", "--nv", "c.sif"]
