#!/bin/bash
# The study. What is finished is not run again, what was killed goes on.
#
#   experiments/unicorn/run.sh vectors            # the user model of all seeds, once
#   experiments/unicorn/run.sh beauty 0 1 2       # joint and alone, in steps of personalisation
#   experiments/unicorn/run.sh trunk_vectors      # the trunk as user model of all seeds, once
#   experiments/unicorn/run.sh from_trunk 0 1 2   # in steps of personalisation by the trunk's vectors
#   experiments/unicorn/run.sh search 0 1 2       # the search task alone on judged queries
#   experiments/unicorn/run.sh beauty 0 -- --gin.UNICORN_EPOCHS=1      # more flags behind --
#
# BEAUTY_DIR and SEARCH_DIR say where the data are. Rows are written to results.jsonl and results_search.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
beauty=${BEAUTY_DIR:-data/amazon_beauty} search=${SEARCH_DIR:-data/search_relevance} runs=runs/unicorn
declare -A vectors=([beauty]=vectors [from_trunk]=trunk_vectors) models=([beauty]=three_tasks [from_trunk]=from_trunk)
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
plum=${PLUM:-.venv/bin/plum}
[[ $what != *vectors || ${#seeds[@]} -gt 0 ]] || seeds=(0)
for seed in "${seeds[@]}"; do
  case $what in
    vectors | trunk_vectors)
      "$plum" --gin_file="experiments/unicorn/$what.gin" --gin.SEED="$seed" --gin.DATA_DIR="'$beauty'" \
        --gin.MODEL_DIR="'$runs/$what'" "${@:2}" ;;
    beauty | from_trunk)
      made=$runs/${vectors[$what]}/vectors
      "$plum" --gin_file="experiments/unicorn/${models[$what]}.gin" --gin.SEED="$seed" --gin.DATA_DIR="'$beauty'" \
        --gin.USER_VECTORS="'$made/users.parquet'" --gin.ITEM_VECTORS="'$made/items.parquet'" \
        --gin.MODEL_DIR="'$runs/$what/$seed'" --gin.RESULTS_FILE="'experiments/unicorn/results.jsonl'" "${@:2}" ;;
    search)
      "$plum" --gin_file=gin/run/unicorn_search.gin --gin.SEED="$seed" --gin.JUDGEMENTS="'$search/judgements.parquet'" \
        --gin.ITEMS="'$search/items.parquet'" --gin.MODEL_DIR="'$runs/search/$seed'" \
        --gin.RESULTS_FILE="'experiments/unicorn/results_search.jsonl'" "${@:2}" ;;
    *) echo "expected vectors, beauty, trunk_vectors, from_trunk or search, got $what" >&2 && exit 1 ;;
  esac
done
