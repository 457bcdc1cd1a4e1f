#!/bin/bash
# The four starts of the study on one corpus, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/init_cpt/run.sh ml_1m 0 1 2
#   experiments/init_cpt/run.sh beauty 0 -- --gin.RETRIEVAL_STEPS=600    # more flags behind --
#
# PRETRAINED is a language model that docs/pretrained.md can read (by default data/stories260K.bin, with tok512.bin beside it: karpathy/tinyllamas on
# the Hugging Face hub). DATA_DIR says where the corpus's files are (by default data/amazon_beauty and data/ml_1m); rows are appended to results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
declare -A FILES=([beauty]=data/amazon_beauty [ml_1m]=data/ml_1m)
corpus=$1
shift
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
for seed in "${seeds[@]}"; do
  "${PLUM:-.venv/bin/plum}" --gin_file=experiments/init_cpt/study.gin --gin_file="experiments/init_cpt/$corpus.gin" \
    --gin.PRETRAINED="'${PRETRAINED:-data/stories260K.bin}'" --gin.SEED="$seed" --gin.DATA_DIR="'${DATA_DIR:-${FILES[$corpus]}}'" \
    --gin.MODEL_DIR="'runs/init_cpt/$corpus/$seed'" "${@:2}"
done
