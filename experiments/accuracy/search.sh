#!/bin/bash
# Eight trials of each system on MovieLens-100K's validation users, as many for the baselines as for ours; rows in search/SYSTEM.jsonl.
#
#   experiments/accuracy/search.sh item_history sasrec esasrec
#
# DATA_DIR says where MovieLens-100K lies (by default it is fetched: gin/corpus/ml_100k.gin).
set -euo pipefail
cd "$(dirname "$0")/../.."
data=()
[[ -z ${DATA_DIR:-} ]] || data=(--gin.DATA_DIR="'$DATA_DIR'")
for system in "$@"; do
  "${PLUM:-.venv/bin/plum}" --gin_file=experiments/accuracy/search/common.gin --gin_file="experiments/accuracy/search/$system.gin" \
    --gin.RESULTS_FILE="'experiments/accuracy/search/$system.jsonl'" --gin.MODEL_DIR="'runs/accuracy/search/$system'" "${data[@]}"
done
