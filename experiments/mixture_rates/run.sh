#!/bin/bash
# Rates of CPT's tasks chosen by proxies, then runs with them and with the usual ones, seed by seed. What is finished is not run again.
#
#   experiments/mixture_rates/run.sh 0 1 2
#
# DATA_DIR says where MovieLens-1M's files are (by default data/ml_1m); rows are appended to results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
plum=${PLUM:-.venv/bin/plum} data=${DATA_DIR:-data/ml_1m} runs=runs/mixture_rates
"$plum" --gin_file=gin/run/mixture_rates.gin --gin_file=gin/corpus/ml_1m_sequences.gin --gin_file=gin/model/cpu_nano.gin \
  --gin_file=experiments/mixture_rates/sizes.gin --gin.DATA_DIR="'$data'" --gin.MODEL_DIR="'$runs/search'"
chosen=experiments/mixture_rates/chosen.gin found=$runs/search/mixture_rates/rates.gin
[[ ! -e $found ]] || cp "$found" "$chosen"
[[ ! -e ${found%/*}/rounds.json ]] || cp "${found%/*}/rounds.json" experiments/mixture_rates/rounds.json
for seed in "$@"; do
  for name in usual chosen; do
    more=()
    [[ $name = usual ]] || more=(--gin_file="$chosen")
    "$plum" --gin_file=gin/run/pipeline.gin --gin_file=gin/corpus/ml_1m_sequences.gin --gin_file=gin/model/cpu_nano.gin \
      --gin_file=experiments/mixture_rates/sizes.gin "${more[@]}" --gin.SYSTEMS="{'$name': @system.GenerativeRetrieval()}" \
      --gin.compare.compare.results_file="'experiments/mixture_rates/results.jsonl'" \
      --gin.SEED="$seed" --gin.DATA_DIR="'$data'" --gin.MODEL_DIR="'$runs/$name/$seed'"
  done
done
