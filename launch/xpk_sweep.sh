#!/usr/bin/env bash
# Runs a sweep on GKE by XPK: a workload for each entry, started by gke.sh.
#
#   python -m stormer_jax.main --mode=sweep --config=configs/ablations.py --list
#   IMAGE=REGION-docker.pkg.dev/PROJECT/REPOSITORY/stormer-jax:tpu \
#   PROJECT=my-project CLUSTER=my-cluster TYPE=v6e-8 ENTRIES="0 1 2" \
#   launch/xpk_sweep.sh [--dry-run] --config=configs/ablations.py
#
# The other settings are those of gke.sh, but TYPE is one machine (v6e-8), as a
# run of a sweep has one. XPK queues what the cluster has no room for.
source "$(dirname "$0")/common.sh"

: "${ENTRIES:?numbers of entries, as \"0 1 2\", which --list shows}"
sweep=${NAME:-sweep}
export TYPE=${TYPE:-v6e-8}
for entry in $ENTRIES; do
  NAME="$sweep-$entry" bash "$(dirname "$0")/gke.sh" \
    ${DRY_RUN:+--dry-run} --mode=sweep --entry="$entry" \
    --workdir="/mnt/bucket/runs/$sweep" "$@"
done
