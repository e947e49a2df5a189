#!/bin/bash
# One allocation with a HyperQueue server and one of its workers; hpotune's workers are its tasks. sbatch hyperqueue.sh
#SBATCH --cpus-per-task=2
#SBATCH --time=00:30:00
#SBATCH --output=slurm-%j.out
export HQ_SERVER_DIR=$PWD/hq-$SLURM_JOB_ID
hq server start &
until hq server info >hq-info.txt 2>&1; do sleep 1; done
hq worker start --cpus 2 &
hpotune submit hyperqueue.yaml && hpotune wait hyperqueue.yaml
code=$?
hq server stop
exit $code
