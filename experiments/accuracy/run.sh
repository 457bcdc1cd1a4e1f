#!/bin/bash
# One system of the study on one corpus, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/accuracy/run.sh beauty item_history 0 1 2
#   experiments/accuracy/run.sh beauty sasrec_bce 0 -- --gin.SASREC_STEPS=8000    # more flags behind --
#
# DATA_DIR says where the corpus's files are (by default data/amazon_beauty and data/ml_1m); rows are appended to results.jsonl. Several
# calls may run side by side: `taskset -c 0` and `taskset -c 1` in front keep them out of each other's way. Another study that differs in
# a file of its own sets `study` to its folder and reads this one (experiments/cold_start/run.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
declare -A SYSTEM=(
  [popularity]='@popularity.Popularity()'
  [item_knn]='@item_knn.ItemKnn()'
  [transition_graph]='@transition_graph.TransitionGraph()'
  [matrix_completion]='@matrix_completion.MatrixCompletion()'
  [sasrec_bce]='@sasrec/bce/sasrec.SasRec()'
  [sasrec]='@sasrec/sasrec.SasRec()'
  [esasrec]='@esasrec/sasrec.SasRec()'
  [lem]='@lem/lem.Lem()'
  [item_history]='@item_history/item_history.ItemHistory()'
  [tiger]='@tiger/system.GenerativeRetrieval()'
)
declare -A FILES=([beauty]=data/amazon_beauty [ml_1m]=data/ml_1m)
corpus=$1 system=$2
shift 2
more=() runs=runs/accuracy/$corpus
[[ -z ${study:-} ]] || more=(--gin_file="experiments/$study/study.gin") runs=runs/$study
[[ $system != tiger ]] || more+=(--gin_file=experiments/accuracy/tiger.gin)
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
for seed in "${seeds[@]}"; do
  "${PLUM:-.venv/bin/plum}" --gin_file="experiments/accuracy/study.gin" --gin_file="experiments/accuracy/$corpus.gin" \
    "${more[@]}" --gin.SYSTEMS="{'$system': ${SYSTEM[$system]}}" --gin.SEED="$seed" \
    --gin.DATA_DIR="'${DATA_DIR:-${FILES[$corpus]}}'" --gin.MODEL_DIR="'$runs/$system/$seed'" "${@:2}"
done
