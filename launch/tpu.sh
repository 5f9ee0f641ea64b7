#!/usr/bin/env bash
# Trains on Cloud TPU: one VM (TYPE=v6e-8) or a slice of many (TYPE=v6e-64).
#
#   IMAGE=REGION-docker.pkg.dev/PROJECT/REPOSITORY/stormer-jax:tpu \
#   BUCKET=my-bucket ZONE=us-east5-b TYPE=v6e-8 \
#   launch/tpu.sh [--dry-run] --config=configs/ffpp_c23.py [flags of main.py]
#
# It makes the TPU, mounts the bucket on every worker, runs the container there
# and follows it. A spot TPU that is taken away is made anew, as often as it
# takes: the run continues from its last checkpoint. The bucket holds data/, as
# data_pipeline.prepare wrote it, and runs/. Setting up: docs/launch.md.
source "$(dirname "$0")/common.sh"

: "${IMAGE:?name the container image}" "${BUCKET:?name the bucket}"
NAME=${NAME:-stormer}                # of the TPU, and of the folder of the run
ZONE=${ZONE:-us-east5-b}
TYPE=${TYPE:-v6e-8}
VERSION=${VERSION:-v2-alpha-tpuv6e}  # of the VM: docs/launch.md has the others
SPOT=${SPOT-1}                       # SPOT= for a TPU that nobody takes away

tpu() { run gcloud compute tpus tpu-vm "$1" "${@:2}" --zone="$ZONE"; }

make_tpu() {
  tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" \
    --scopes=https://www.googleapis.com/auth/cloud-platform ${SPOT:+--spot}
}

start_and_follow() {
  tpu scp launch/common.sh launch/tpu_worker.sh "$NAME:" --worker=all &&
    tpu ssh "$NAME" --worker=all --command="$(quoted \
      bash tpu_worker.sh "$IMAGE" "$BUCKET" --mode=train \
      --data_root=/mnt/bucket/data --workdir="/mnt/bucket/runs/$NAME" \
      --compilation_cache=/mnt/bucket/compiled "$@")"
}

state() {
  gcloud compute tpus tpu-vm describe "$NAME" --zone="$ZONE" \
    --format='value(state)' 2>/dev/null || echo ABSENT
}

if [[ $DRY_RUN ]]; then
  make_tpu
  start_and_follow "$@"
  tpu delete "$NAME" --quiet
  exit
fi
while true; do
  if [[ $(state) != READY ]]; then
    tpu delete "$NAME" --quiet || true  # what is left of the one before
    until make_tpu; do sleep 60; done   # no capacity now
  fi
  status=0
  start_and_follow "$@" || status=$?
  [[ $status == 0 ]] && break
  sleep 60                              # until a preemption shows in the state
  if [[ $(state) == READY ]]; then
    echo "failed with status $status; the TPU $NAME is still there" >&2
    exit "$status"
  fi
done
tpu delete "$NAME" --quiet
