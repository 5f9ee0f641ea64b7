#!/usr/bin/env bash
# Trains on GKE by XPK: TPU slices (TYPE=v6e-64) or GPU machines
# (TYPE=h100-mega-80gb-8), COUNT of them.
#
#   IMAGE=REGION-docker.pkg.dev/PROJECT/REPOSITORY/stormer-jax:tpu \
#   PROJECT=my-project CLUSTER=my-cluster ZONE=us-east5-b TYPE=v6e-64 \
#   launch/gke.sh [--dry-run] --config=configs/ffpp_c23.py [flags of main.py]
#
# STORAGE is a bucket that `xpk storage attach` has mounted at /mnt/bucket. What
# is preempted, evicted or killed is restarted up to 50 times; statuses 42 and
# 127 to 255 say so, and a mistake of yours (2) ends the workload at once.
source "$(dirname "$0")/common.sh"

: "${IMAGE:?name the container image}" "${PROJECT:?}" "${CLUSTER:?}"
NAME=${NAME:-stormer}  # of the workload, and of the folder of the run
ZONE=${ZONE:-us-east5-b}
TYPE=${TYPE:-v6e-64}
COUNT=${COUNT:-1}
STORAGE=${STORAGE:-stormer-bucket}

case $TYPE in
  v[0-9]* | tpu*) devices=(--tpu-type="$TYPE" --num-slices="$COUNT") ;;
  *) devices=(--device-type="$TYPE" --num-nodes="$COUNT") ;;
esac
run xpk workload create --workload="$NAME" --project="$PROJECT" \
  --cluster="$CLUSTER" --zone="$ZONE" "${devices[@]}" \
  --docker-image="$IMAGE" --storage="$STORAGE" --max-restarts=50 \
  --termination-grace-period-seconds=120 \
  --command="$(quoted python -m stormer_jax.main --mode=train \
    --data_root=/mnt/bucket/data --workdir="/mnt/bucket/runs/$NAME" \
    --compilation_cache=/mnt/bucket/compiled "$@")"
