#!/bin/bash
# One allocation in which hpotune runs the whole study, budget.parallel trials at a time. sbatch pool.sh
#SBATCH --cpus-per-task=2
#SBATCH --time=00:30:00
#SBATCH --output=slurm-%j.out
export OMP_NUM_THREADS=1
hpotune run pool.yaml
