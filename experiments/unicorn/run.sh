#!/bin/bash
# The study. What is finished is not run again, what was killed goes on.
#
#   experiments/unicorn/run.sh vectors            # the user model of all seeds, once
#   experiments/unicorn/run.sh beauty 0 1 2       # joint and alone, in steps of personalisation
#   experiments/unicorn/run.sh search 0 1 2       # the search task alone on judged queries
#   experiments/unicorn/run.sh beauty 0 -- --gin.UNICORN_EPOCHS=1      # more flags behind --
#
# BEAUTY_DIR and SEARCH_DIR say where the data are. Rows are written to results.jsonl and results_search.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
beauty=${BEAUTY_DIR:-data/amazon_beauty} search=${SEARCH_DIR:-data/search_relevance} runs=runs/unicorn
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
plum=${PLUM:-.venv/bin/plum}
[[ $what != vectors || ${#seeds[@]} -gt 0 ]] || seeds=(0)
for seed in "${seeds[@]}"; do
  case $what in
    vectors)
      "$plum" --gin_file=experiments/unicorn/vectors.gin --gin.SEED="$seed" --gin.DATA_DIR="'$beauty'" \
        --gin.MODEL_DIR="'$runs/vectors'" "${@:2}" ;;
    beauty)
      "$plum" --gin_file=experiments/unicorn/three_tasks.gin --gin.SEED="$seed" --gin.DATA_DIR="'$beauty'" \
        --gin.USER_VECTORS="'$runs/vectors/vectors/users.parquet'" --gin.ITEM_VECTORS="'$runs/vectors/vectors/items.parquet'" \
        --gin.MODEL_DIR="'$runs/beauty/$seed'" --gin.RESULTS_FILE="'experiments/unicorn/results.jsonl'" "${@:2}" ;;
    search)
      "$plum" --gin_file=gin/run/unicorn_search.gin --gin.SEED="$seed" --gin.JUDGEMENTS="'$search/judgements.parquet'" \
        --gin.ITEMS="'$search/items.parquet'" --gin.MODEL_DIR="'$runs/search/$seed'" \
        --gin.RESULTS_FILE="'experiments/unicorn/results_search.jsonl'" "${@:2}" ;;
    *) echo "expected vectors, beauty or search, got $what" >&2 && exit 1 ;;
  esac
done
