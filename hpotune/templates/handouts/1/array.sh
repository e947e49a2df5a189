#!/bin/bash
# Ten trials, two at a time: each element of the array is one trial. sbatch array.sh [STUDY]
#SBATCH --array=0-9%2
#SBATCH --cpus-per-task=1
#SBATCH --time=00:10:00
#SBATCH --output=slurm-%A_%a.out
hpotune worker "${1:-random.yaml}" --trials 1
