#!/bin/bash
# The study, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/language/run.sh 0 1 2
#
# DATA_DIR says where MovieLens-100K lies (by default it is fetched: gin/corpus/ml_100k.gin); rows are appended to results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=()
[[ -z ${DATA_DIR:-} ]] || data=(--gin.DATA_DIR="'$DATA_DIR'")
for seed in "$@"; do
  "${PLUM:-.venv/bin/plum}" --gin_file=gin/run/pipeline.gin --gin_file=gin/corpus/ml_100k.gin --gin_file=gin/model/cpu_tiny.gin \
    --gin_file=gin/tasks/language.gin --gin_file=experiments/language/study.gin \
    --gin.SEED="$seed" --gin.MODEL_DIR="'runs/language/$seed'" "${data[@]}"
done
