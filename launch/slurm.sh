#!/usr/bin/env bash
# Trains on a SLURM cluster: one process a machine, each with all its GPUs.
#
#   DATA=/shared/data WORKDIR=/shared/runs/stormer \
#   sbatch --nodes=2 launch/slurm.sh --config=configs/ffpp_c23.py [flags]
#
# Submit it from the root of the repository, with the environment activated that
# has Stormer-JAX; `bash launch/slurm.sh --dry-run ...` shows the command. DATA
# and WORKDIR are on a file system that all machines see. SLURM asks the run to
# stop 3 minutes before its time is up, or earlier when it is preempted; it saves
# itself, goes back into the queue, and continues.
#SBATCH --job-name=stormer
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# SLURM runs a copy of this file, from somewhere else.
source "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}/launch/common.sh"

: "${DATA:?folder that prepare wrote}" "${WORKDIR:?folder of the run}"
status=0
run srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-32}" \
  python -m stormer_jax.main --mode=train --data_root="$DATA" \
  --workdir="$WORKDIR" --compilation_cache="$WORKDIR/compiled" "$@" ||
  status=$?
# 143: stopped on request, and saved. Others from 128: killed, or crashed.
restarts=${SLURM_RESTART_COUNT:-0}
if [[ $DRY_RUN ]] || ((status >= 128 && restarts < 100)); then
  run scontrol requeue "${SLURM_JOB_ID:-SLURM_JOB_ID}"
fi
exit "$status"
