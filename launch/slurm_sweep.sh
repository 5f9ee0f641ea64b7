#!/usr/bin/env bash
# Runs a sweep on a SLURM cluster: each entry is a task of an array job, its
# seeds one after another on one machine.
#
#   python -m stormer_jax.main --mode=sweep --config=configs/ablations.py --list
#   DATA=/shared/data WORKDIR=/shared/runs/ablations \
#   sbatch --array=0-38 launch/slurm_sweep.sh --config=configs/ablations.py
#
# `--array=0-38%4` runs four at a time; `--gpus-per-node=1` gives each one GPU.
# A task that is stopped or killed goes back into the queue and continues;
# finished runs do not run again. Submit it as slurm.sh says.
#SBATCH --job-name=stormer-sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
# SLURM runs a copy of this file, from somewhere else.
source "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}/launch/common.sh"

: "${DATA:?folder that prepare wrote}" "${WORKDIR:?folder of the sweep}"
if [[ ! $DRY_RUN ]]; then
  : "${SLURM_ARRAY_TASK_ID:?submit with sbatch --array=0-N, as --list numbers}"
fi
status=0
run srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-32}" \
  python -m stormer_jax.main --mode=sweep \
  --entry="${SLURM_ARRAY_TASK_ID:-SLURM_ARRAY_TASK_ID}" --data_root="$DATA" \
  --workdir="$WORKDIR" --compilation_cache="$WORKDIR/compiled" "$@" ||
  status=$?
# 143: stopped on request, and saved. Others from 128: killed, or crashed.
restarts=${SLURM_RESTART_COUNT:-0}
if [[ $DRY_RUN ]] || ((status >= 128 && restarts < 100)); then
  run scontrol requeue "${SLURM_JOB_ID:-SLURM_JOB_ID}"
fi
exit "$status"
