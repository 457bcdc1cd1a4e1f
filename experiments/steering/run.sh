#!/bin/bash
# The study, seed by seed: training, requests in words, reasons, watch-next tables. What is finished is not run again, what was killed goes on.
#
#   experiments/steering/run.sh 0 1 2
#
# DATA_DIR says where GroupLens's MovieLens-1M lies (by default it is fetched: gin/corpus/ml_1m.gin); rows are appended to the .jsonl files here.
set -euo pipefail
cd "$(dirname "$0")/../.."
plum=${PLUM:-.venv/bin/plum}
data=()
[[ -z ${DATA_DIR:-} ]] || data=(--gin.DATA_DIR="'$DATA_DIR'")
for seed in "$@"; do
  "$plum" --gin_file=gin/run/pipeline.gin --gin_file=gin/corpus/ml_1m.gin --gin_file=gin/model/cpu_tiny.gin --gin_file=gin/tasks/language.gin \
    --gin_file=gin/tasks/explanations.gin --gin_file=gin/tasks/requests.gin --gin_file=experiments/steering/study.gin \
    --gin.SEED="$seed" --gin.MODEL_DIR="'runs/steering/$seed'" "${data[@]}"
  results=(--gin.RESULTS_FILE="'experiments/steering/results.jsonl'" --gin.SYSTEM="'with_cpt'")
  "$plum" steer "runs/steering/$seed" --gin.FIELD="'genres'" --gin.VALUES="['Film-Noir', 'Western', 'Documentary', 'Animation', 'War', 'Horror', 'Comedy']" \
    --gin.USERS=1000 "${results[@]}"
  "$plum" steer "runs/steering/$seed" --gin.FIELD="'year:10'" --gin.VALUES="['1930s', '1940s', '1950s', '1970s', '1990s']" --gin.USERS=1000 "${results[@]}"
  "$plum" faithfulness "runs/steering/$seed" --gin.USERS=1000 "${results[@]}"
  "$plum" offline_recall "runs/steering/$seed" --gin.USERS=3000 "${results[@]}"
done
