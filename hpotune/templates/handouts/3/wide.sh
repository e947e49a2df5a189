#!/bin/bash
# Big and wide: one job of four CPUs in which hpotune runs four trials at a time. sbatch wide.sh
#SBATCH --cpus-per-task=4
#SBATCH --time=00:10:00
#SBATCH --output=slurm-%j.out
hpotune run wide.yaml
