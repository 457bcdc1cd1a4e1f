#!/bin/bash
# The study. What is finished is not run again, what was killed goes on.
#
#   experiments/relevance/run.sh home_depot 0 1 2     # teacher, assistants, students
#   experiments/relevance/run.sh crowdflower 0 1 2    # the same recipe on the set that nothing was chosen on
#   experiments/relevance/run.sh minilm 0 1 2         # the second teacher, all-MiniLM, and its students
#   experiments/relevance/run.sh minilm_crowdflower 0 1 2
#   experiments/relevance/run.sh home_depot 0 -- --gin.FOLD="'validation'"    # more flags behind --
#
# SEARCH_DIR says where the data are, PRETRAINED and MINILM where the language models are. Rows are written to
# results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
search=${SEARCH_DIR:-data/search_relevance} runs=runs/relevance
pretrained=${PRETRAINED:-data/SmolLM2-135M-Instruct.Q4_1.gguf} minilm=()
if [[ $what == minilm* ]]; then
  pretrained=${MINILM:-data/all-MiniLM-L6-v2} minilm=(--gin_file=experiments/relevance/minilm.gin)
fi
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
plum=${PLUM:-.venv/bin/plum}
for seed in "${seeds[@]}"; do
  case $what in
    home_depot | minilm)
      data=(home_depot.gin "--gin.JUDGEMENTS='$search/judgements.parquet'" "--gin.ITEMS='$search/items.parquet'") ;;
    crowdflower | minilm_crowdflower)
      data=(crowdflower.gin "--gin.JUDGEMENTS='$search/crowdflower/judgements.tsv'"
        "--gin.ITEMS='$search/crowdflower/items.tsv'" "--gin.QUERIES='$search/crowdflower/queries.tsv'") ;;
    *) echo "expected home_depot, crowdflower, minilm or minilm_crowdflower, got $what" >&2 && exit 1 ;;
  esac
  "$plum" --gin_file="experiments/relevance/${data[0]}" "${minilm[@]}" "${data[@]:1}" --gin.SEED="$seed" \
    --gin.PRETRAINED="'$pretrained'" --gin.MODEL_DIR="'$runs/$what'" \
    --gin.RESULTS_FILE="'experiments/relevance/results.jsonl'" "${@:2}"
done
