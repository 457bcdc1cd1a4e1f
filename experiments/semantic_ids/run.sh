#!/bin/bash
# All cells of the study for some corpora: 7 variants x 3 seeds each. A finished cell is skipped, a killed one goes on.
#
#   experiments/semantic_ids/run.sh beauty ml_1m
#
# DATA_DIR_beauty and DATA_DIR_ml_1m say where the files are (by default data/amazon_beauty and data/ml_1m). Two calls, one
# for each corpus, may run side by side: `taskset -c 0` and `taskset -c 1` in front keep them out of each other's way.
set -euo pipefail
cd "$(dirname "$0")/../.."
PLUM=${PLUM:-.venv/bin/plum}
DATA_DIR_beauty=${DATA_DIR_beauty:-data/amazon_beauty}
DATA_DIR_ml_1m=${DATA_DIR_ml_1m:-data/ml_1m}
for seed in 0 1 2; do
  for variant in v1 v2 no_multi_resolution no_multi_embedding no_co_occurrence residual_kmeans random; do
    for corpus in "$@"; do
      data_dir=DATA_DIR_$corpus
      "$PLUM" --gin_file=experiments/semantic_ids/study.gin --gin_file=experiments/semantic_ids/$corpus.gin \
        --gin_file=experiments/semantic_ids/$variant.gin --gin.SEED=$seed --gin.DATA_DIR="'${!data_dir}'" \
        --gin.MODEL_DIR="'runs/semantic_ids/$corpus/$variant/$seed'"
    done
  done
done
