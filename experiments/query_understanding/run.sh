#!/bin/bash
# The study. What is finished is not run again, what was killed goes on.
#
#   experiments/query_understanding/run.sh classifiers 0 1 2
#   experiments/query_understanding/run.sh rewrites 0 1 2
#   experiments/query_understanding/run.sh served 0 1 2       # behind classifiers: the language model is its teacher
#   experiments/query_understanding/run.sh pretrained 0 1 2   # another program's language model, and its sizes alone
#   experiments/query_understanding/run.sh simulator          # how far above one could come
#   experiments/query_understanding/run.sh films 0 1 2        # the classifiers on MovieLens-1M
#   experiments/query_understanding/run.sh related            # complementary items and substitutes
#   experiments/query_understanding/run.sh classifiers 0 -- --gin.BAG_EPOCHS=1      # more flags behind --
#
# BEAUTY_DIR and ML_1M_DIR say where the data are, PRETRAINED which language model. Rows are written to results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
runs=${RUNS:-runs/query_understanding} here=experiments/query_understanding
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
[[ $what != related && $what != simulator ]] || seeds=(0)
events=(--gin_file=gin/corpus/beauty.gin --gin.DATA_DIR="'${BEAUTY_DIR:-data/amazon_beauty}'" --gin.CATEGORY_FIELD="'category_path'")
plum=${PLUM:-.venv/bin/plum}
for seed in "${seeds[@]}"; do
  common=("${events[@]}" --gin.SEED="$seed" --gin.MODEL_DIR="'$runs/$seed'" --gin.RESULTS_FILE="'${RESULTS:-$here/results.jsonl}'" "${@:2}")
  case $what in
    classifiers) "$plum" --gin_file=gin/run/query_understanding.gin --gin.QUERY_TEXT="('title',)" "${common[@]}" ;;
    rewrites) "$plum" --gin_file=gin/run/query_rewrites.gin --gin.QUERY_TEXT="('title',)" --gin.MAX_EVENTS=2000 "${common[@]}" ;;
    served)
      # Rewrites of 15,000 queries for the table take minutes, and no figure hangs on them.
      "$plum" --gin_file=gin/run/query_serving.gin --gin.QUERY_TEXT="('title',)" --gin.REWRITER=None "${common[@]}" ;;
    pretrained)
      "$plum" --gin_file=$here/pretrained.gin --gin.QUERY_TEXT="('title',)" --gin.PRETRAINED="'${PRETRAINED:-data/stories260K.bin}'" "${common[@]}" ;;
    simulator) "$plum" --gin_file=$here/simulator.gin --gin.QUERY_TEXT="('title',)" "${common[@]}" ;;
    films)
      "$plum" --gin_file=$here/ml_1m.gin --gin.DATA_DIR="'${ML_1M_DIR:-data/ml_1m}'" --gin.SEED="$seed" --gin.MODEL_DIR="'$runs/films/$seed'" \
        --gin.RESULTS_FILE="'${RESULTS:-$here/results.jsonl}'" "${@:2}" ;;
    related) "$plum" --gin_file=gin/run/related_items.gin --gin.ITEM_TEXT="('title',)" "${common[@]}" ;;
    *) echo "expected classifiers, rewrites, served, pretrained, simulator, films or related, got $what" >&2 && exit 1 ;;
  esac
done
