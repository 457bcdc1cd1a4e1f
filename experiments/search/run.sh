#!/bin/bash
# The study. What is finished is not run again, what was killed goes on.
#
#   experiments/search/run.sh arms 0 1 2          # the towers whole and with each part removed
#   experiments/search/run.sh quality 0 1 2       # weights of quality, after arms
#   experiments/search/run.sh index 0 1 2         # size and recall of the index, after quality
#   experiments/search/run.sh judged 0 1 2        # text towers on the judged queries of Home Depot
#   experiments/search/run.sh crowdflower 0 1 2   # and, by the same recipe, on those of CrowdFlower, after crowdflower.py
#   experiments/search/run.sh judged_minilm 0 1 2        # text towers that begin as all-MiniLM's vectors, and these
#   experiments/search/run.sh crowdflower_minilm 0 1 2   # after crowdflower.py
#   experiments/search/run.sh arms 0 -- --gin.SEARCH_EPOCHS=2      # more flags behind --
#
# BEAUTY_DIR and SEARCH_DIR say where the data are, MINILM where the language model is. Rows are written to
# results*.jsonl beside this file.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
beauty=${BEAUTY_DIR:-data/amazon_beauty} search=${SEARCH_DIR:-data/search_relevance} runs=runs/search
here=experiments/search towers=(--gin_file=gin/run/product_search_judged.gin)
if [[ $what == *_minilm ]]; then
  towers=(--gin_file=$here/minilm.gin --gin.SEARCH_LANGUAGE_MODEL="'${MINILM:-data/all-MiniLM-L6-v2}'"
    --gin.COSINES_DIR="'$runs/$what'")
fi
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
plum=${PLUM:-.venv/bin/plum}
for seed in "${seeds[@]}"; do
  of_seed=(--gin.SEED="$seed")
  on_beauty=("${of_seed[@]}" --gin.DATA_DIR="'$beauty'" --gin.MODEL_DIR="'$runs/beauty/$seed'")
  case $what in
    arms)
      "$plum" --gin_file=$here/arms.gin "${on_beauty[@]}" --gin.RESULTS_FILE="'$here/results.jsonl'" "${@:2}" ;;
    quality | index)
      "$plum" --gin_file="gin/run/product_search_$what.gin" --gin_file=$here/beauty.gin "${on_beauty[@]}" \
        --gin.RESULTS_FILE="'$here/results_$what.jsonl'" "${@:2}" ;;
    judged | judged_minilm)
      "$plum" "${towers[@]}" "${of_seed[@]}" \
        --gin.JUDGEMENTS="'$search/judgements.parquet'" --gin.ITEMS="'$search/items.parquet'" \
        --gin.MODEL_DIR="'$runs/$what/$seed'" --gin.RESULTS_FILE="'$here/results_judged.jsonl'" "${@:2}" ;;
    crowdflower | crowdflower_minilm)
      "$plum" "${towers[@]}" "${of_seed[@]}" \
        --gin.JUDGEMENTS="'$runs/crowdflower.parquet'" --gin.ITEMS="'$runs/crowdflower_items.parquet'" \
        --gin.RELEVANT=3.0 --gin.DATA_NAME="'CrowdFlower search'" --gin.MODEL_DIR="'$runs/$what/$seed'" \
        --gin.RESULTS_FILE="'$here/results_judged.jsonl'" "${@:2}" ;;
    *) echo "expected arms, quality, index, judged(_minilm) or crowdflower(_minilm), got $what" >&2 && exit 1 ;;
  esac
done
