#!/usr/bin/env bash
# Runs a sweep on any GKE cluster as an indexed Job: a pod for each entry.
#
#   python -m stormer_jax.main --mode=sweep --config=configs/ablations.py --list
#   IMAGE=REGION-docker.pkg.dev/PROJECT/REPOSITORY/stormer-jax:cuda \
#   BUCKET=my-bucket ENTRIES=39 \
#   launch/gke_sweep.sh [--dry-run] --config=configs/ablations.py
#
# ENTRIES pods, PARALLEL at a time, on machines with CHIPS of DEVICE. The bucket
# is mounted by the driver of GKE for Cloud Storage, as the account ACCOUNT. A
# pod that is evicted or killed starts again up to 20 times; one that ends in 2,
# as after a mistake of yours, does not, and stops no other.
source "$(dirname "$0")/common.sh"

: "${IMAGE:?name the container image}" "${BUCKET:?name the bucket}"
: "${ENTRIES:?number of entries, which --list shows}"
NAME=${NAME:-sweep}  # of the Job, and of the folder of the runs
PARALLEL=${PARALLEL:-4}
ACCOUNT=${ACCOUNT:-default}
DEVICE=${DEVICE:-nvidia-h100-80gb}  # or a TPU, as tpu-v6e-slice
TOPOLOGY=${TOPOLOGY:-}              # of a TPU, as 2x4: one machine
CHIPS=${CHIPS:-8}

case $DEVICE in
  tpu*) label=cloud.google.com/gke-tpu-accelerator resource=google.com/tpu ;;
  *) label=cloud.google.com/gke-accelerator resource=nvidia.com/gpu ;;
esac

# The arguments as a list of YAML, which holds strings of JSON.
arguments() {
  local word escaped
  for word; do
    escaped=${word//\\/\\\\}
    echo "            - \"${escaped//\"/\\\"}\""
  done
}

job() {
  cat <<END
apiVersion: batch/v1
kind: Job
metadata:
  name: $NAME
spec:
  completionMode: Indexed
  completions: $ENTRIES
  parallelism: $PARALLEL
  backoffLimitPerIndex: 20
  podFailurePolicy:
    rules:
      - action: FailIndex
        onExitCodes: {containerName: stormer, operator: In, values: [2]}
      - action: Ignore
        onPodConditions: [{type: DisruptionTarget}]
  template:
    metadata:
      annotations: {gke-gcsfuse/volumes: "true"}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 120
      serviceAccountName: $ACCOUNT
      nodeSelector:
        $label: $DEVICE
${TOPOLOGY:+        cloud.google.com/gke-tpu-topology: $TOPOLOGY
}      containers:
        - name: stormer
          image: $IMAGE
          args:
$(arguments --mode=sweep '--entry=$(JOB_COMPLETION_INDEX)' \
    --data_root=/mnt/bucket/data --workdir="/mnt/bucket/runs/$NAME" \
    --compilation_cache=/mnt/bucket/compiled "$@")
          resources:
            limits: {$resource: $CHIPS}
          volumeMounts: [{name: bucket, mountPath: /mnt/bucket}]
      volumes:
        - name: bucket
          csi:
            driver: gcsfuse.csi.storage.gke.io
            volumeAttributes: {bucketName: $BUCKET, mountOptions: implicit-dirs}
END
}

if [[ $DRY_RUN ]]; then job "$@"; else job "$@" | kubectl apply --filename=-; fi
