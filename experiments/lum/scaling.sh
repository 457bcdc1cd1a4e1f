#!/bin/bash
# LUM at four sizes and four budgets for one length of the history: plan, run up to the held-out budget, seal the forecast, run the rest, fit.
#
#   experiments/lum/scaling.sh 16
#   experiments/lum/scaling.sh 64
#   experiments/lum/scaling.sh 256
#
# DATA_DIR says where GroupLens's files are (by default they are fetched).
set -euo pipefail
cd "$(dirname "$0")/../.."
length=$1
study=(--gin_file=gin/corpus/ml_1m.gin --gin_file=gin/study/lum.gin --gin_file=experiments/lum/scaling.gin
  --gin.LUM_HISTORY_LENGTH="$length" --gin.BATCH_SIZE="$((1024 / length))" ${DATA_DIR:+--gin.DATA_DIR="'$DATA_DIR'"})
directory=(--gin.STUDY_DIR="'runs/lum/scaling/$length'")
plum=${PLUM:-.venv/bin/plum}
"$plum" --gin_file=gin/run/study_plan.gin "${study[@]}" "${directory[@]}"
"$plum" --gin_file=gin/run/study_run.gin "${study[@]}" "${directory[@]}"
"$plum" --gin_file=gin/run/study_forecast.gin "${directory[@]}"
"$plum" --gin_file=gin/run/study_run.gin "${study[@]}" "${directory[@]}"
"$plum" --gin_file=gin/run/study_score.gin "${directory[@]}"
"$plum" --gin_file=gin/run/study_fit.gin "${directory[@]}"
