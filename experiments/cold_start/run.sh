#!/bin/bash
# One system of the study, seed by seed, as experiments/accuracy/run.sh does it.
#
#   experiments/cold_start/run.sh item_history 0 1 2
#
# DATA_DIR says where the corpus's files are (by default data/ml_1m).
set -euo pipefail
cd "$(dirname "$0")/../.."
declare -A SYSTEM=(
  [transition_graph]='@transition_graph.TransitionGraph()'
  [lem]='@lem/lem.Lem()'
  [item_history]='@item_history/item_history.ItemHistory()'
)
system=$1
shift
for seed in "$@"; do
  "${PLUM:-.venv/bin/plum}" --gin_file=experiments/accuracy/study.gin --gin_file=experiments/accuracy/ml_1m.gin \
    --gin_file=experiments/cold_start/study.gin --gin.SYSTEMS="{'$system': ${SYSTEM[$system]}}" --gin.SEED="$seed" \
    --gin.DATA_DIR="'${DATA_DIR:-data/ml_1m}'" --gin.MODEL_DIR="'runs/cold_start/$system/$seed'"
done
