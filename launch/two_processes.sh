#!/usr/bin/env bash
# Trains on this machine's CPU in COUNT processes of DEVICES devices each: what
# a cluster does, on a laptop.
#
#   DATA=data WORKDIR=runs/tiny \
#   launch/two_processes.sh [--dry-run] --config=configs/tiny.py [flags]
#
# SIGTERM, or control-C, stops all of them together after they have saved.
source "$(dirname "$0")/common.sh"

: "${DATA:?folder that prepare wrote}" "${WORKDIR:?folder of the run}"
COUNT=${COUNT:-2}
DEVICES=${DEVICES:-4}
PORT=${PORT:-29400}  # any free one

pids=()
for ((i = 0; i < COUNT; i++)); do
  command=(env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$DEVICES"
    "JAX_COORDINATOR_ADDRESS=localhost:$PORT" "JAX_NUM_PROCESSES=$COUNT"
    "JAX_PROCESS_ID=$i" python -m stormer_jax.main --mode=train
    --data_root="$DATA" --workdir="$WORKDIR" "$@")
  if [[ $DRY_RUN ]]; then
    run "${command[@]}"
  else
    "${command[@]}" &
    pids+=($!)
  fi
done
[[ $DRY_RUN ]] && exit

trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
highest=0
for pid in "${pids[@]}"; do
  # A signal ends `wait` before the process has ended.
  while true; do
    status=0
    wait "$pid" || status=$?
    kill -0 "$pid" 2>/dev/null || break
  done
  ((status > highest)) && highest=$status
done
exit "$highest"
