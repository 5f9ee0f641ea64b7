#!/usr/bin/env bash
# Runs on every worker of a TPU, sent there by tpu.sh:
#
#   tpu_worker.sh [--dry-run] IMAGE BUCKET [flags of main.py]
#
# All workers run the same command; JAX asks the TPU which of them each one is.
# Losing the connection does no harm: called again, it follows what runs.
source "$(dirname "$0")/common.sh"
image=$1 bucket=$2
shift 2

if [[ $DRY_RUN ]] || ! command -v gcsfuse >/dev/null; then
  key=https://packages.cloud.google.com/apt/doc/apt-key.gpg
  list="deb https://packages.cloud.google.com/apt gcsfuse-jammy main"
  run sudo bash -c "curl -sS $key > /etc/apt/trusted.gpg.d/gcsfuse.asc"
  run sudo bash -c "echo '$list' > /etc/apt/sources.list.d/gcsfuse.list"
  run sudo apt-get -qq update
  run sudo apt-get -qq install gcsfuse
fi
if [[ $DRY_RUN ]] || ! mountpoint -q /mnt/bucket; then
  run sudo mkdir -p /mnt/bucket
  run sudo gcsfuse -o allow_other --implicit-dirs "$bucket" /mnt/bucket
fi
running() { sudo docker ps --quiet --filter=name=stormer | grep -q .; }
if [[ $DRY_RUN ]] || ! running; then
  run sudo gcloud auth configure-docker --quiet "${image%%/*}"
  run sudo docker rm --force stormer
  # Root and privileged: the devices of the TPU belong to root. The network of
  # the machine: the workers talk to each other, and to the TPU's metadata.
  run sudo docker run --detach --name=stormer --privileged --user=root \
    --net=host --stop-timeout=25 --volume=/mnt/bucket:/mnt/bucket \
    "$image" "$@"
fi
run sudo docker logs --follow stormer
[[ $DRY_RUN ]] || exit "$(sudo docker wait stormer)"
