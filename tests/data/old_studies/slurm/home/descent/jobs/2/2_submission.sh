#!/bin/bash

# Parameters
#SBATCH --array=0-5%2
#SBATCH --cpus-per-task=1
#SBATCH --job-name=descent
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=@HOME@/descent/jobs/%A/%A_%a_0_log.out
#SBATCH --partition=a100
#SBATCH --signal=USR2@180
#SBATCH --time=10

# setup
export HPOTUNE_JOB_START=$(date +%s.%N)
export PATH=@BIN@:$PATH
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output @HOME@/descent/jobs/%A/%A_%a_%t_log.out --nodes=1 --ntasks=1 @BIN@/python -m hpotune worker @HOME@/descent --trials 1 --code 878c022b485e
