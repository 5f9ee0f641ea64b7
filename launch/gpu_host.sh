#!/usr/bin/env bash
# Trains on one machine with all its GPUs, in one process.
#
#   DATA=/data WORKDIR=/runs/stormer \
#   launch/gpu_host.sh [--dry-run] --config=configs/ffpp_c23.py [flags]
#
# A run that was killed (by the kernel, for memory) or that crashed starts again
# by itself, up to RESTARTS times. SIGTERM stops it after it has saved itself.
source "$(dirname "$0")/common.sh"

: "${DATA:?folder that prepare wrote}" "${WORKDIR:?folder of the run}"
RESTARTS=${RESTARTS:-10}

command=(python -m stormer_jax.main --mode=train --data_root="$DATA"
  --workdir="$WORKDIR" --compilation_cache="$WORKDIR/compiled" "$@")
if [[ $DRY_RUN ]]; then
  run "${command[@]}"
  exit
fi

child=
stopping=
trap 'stopping=1; kill -TERM $child 2>/dev/null || true' TERM INT
for ((attempt = 0; ; attempt++)); do
  "${command[@]}" &
  child=$!
  # A signal ends `wait` before the child has ended.
  while true; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  if [[ $stopping ]] || ((status < 128 || attempt >= RESTARTS)); then
    exit "$status"
  fi
  echo "ended with status $status; starting again" >&2
  sleep 5
  [[ ! $stopping ]] || exit "$status"
done
