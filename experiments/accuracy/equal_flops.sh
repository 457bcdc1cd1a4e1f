#!/bin/bash
# LEM, SASRec and the item-level model with as many training FLOPs each, 3e12 on Amazon Beauty, a tenth of what the rows of results.jsonl have:
# what a recall costs. Rows are written to equal_flops.jsonl.
#
#   experiments/accuracy/equal_flops.sh 0 1 2
set -euo pipefail
cd "$(dirname "$0")/../.."
common=(--gin.compare.compare.results_file="'experiments/accuracy/equal_flops.jsonl'" --gin.ITEM_NUM_BEAMS=16)
for seed in "$@"; do
  runs=runs/accuracy/equal_flops/$seed
  experiments/accuracy/run.sh beauty lem "$seed" -- "${common[@]}" --gin.MODEL_DIR="'$runs/lem'" --gin.LEM_STEPS=1245 \
    --gin.lem/lem.Lem.curve_users=2000 --gin.lem/training_config.TrainingConfig.evaluation_period=125
  experiments/accuracy/run.sh beauty sasrec "$seed" -- "${common[@]}" --gin.MODEL_DIR="'$runs/sasrec'" --gin.SASREC_STEPS=354 \
    --gin.sasrec/sasrec.SasRec.curve_users=2000 --gin.sasrec/training_config.TrainingConfig.evaluation_period=35
  experiments/accuracy/run.sh beauty item_history "$seed" -- "${common[@]}" --gin.MODEL_DIR="'$runs/item_history'" --gin.ITEM_EPOCHS=None --gin.ITEM_STEPS=335 \
    --gin.item_history/item_history.ItemHistory.curve_users=2000 --gin.item_history/training_config.TrainingConfig.evaluation_period=35
done
