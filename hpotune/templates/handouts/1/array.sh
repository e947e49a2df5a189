#!/bin/bash
# Ten trials, two at a time: one element of the array is one trial.
#SBATCH --array=0-9%2
#SBATCH --time=00:10:00
#SBATCH --job-name=random-search
hpotune worker lab.yaml --trials 1
