#!/bin/bash
# Retrieval fine-tuning under plum and under T5X: the same records, steps, batch, optimizer and decoder; then recall@10.
#   experiments/t5x/run.sh
# Needs T5X (docs/t5x.md). Writes runs/t5x/ and experiments/t5x/results.jsonl.
set -e
PLUM=${PLUM:-.venv/bin/plum}
FILES="--gin_file=gin/corpus/ml_100k.gin --gin_file=gin/model/cpu_tiny.gin --gin_file=experiments/t5x/sizes.gin"
MODEL="--gin_file=gin/model/cpu_tiny.gin"
RUN="--gin.RUN_DIR='runs/t5x/plum'"

$PLUM --gin_file=gin/run/pipeline.gin $FILES --gin.MODEL_DIR="'runs/t5x/plum'"
python -m t5x.train --gin_file=gin/t5x/finetune.gin $MODEL $RUN --gin.MODEL_DIR="'runs/t5x/seqio'" \
  --gin.TRAIN_STEPS=300 --gin.BATCH_SIZE=32 --gin.LENGTH=160 --gin.LEARNING_RATE=3e-3 --gin.CHECKPOINT_PERIOD=300 \
  --gin.EVAL_PERIOD=300 --gin.NUM_BEAMS=64
python -m t5x.eval --gin_file=gin/t5x/eval.gin $MODEL $RUN --gin.CHECKPOINT_PATH="'runs/t5x/seqio/checkpoint_300'" \
  --gin.EVAL_OUTPUT_DIR="'runs/t5x/seqio_test'" --gin.NUM_BEAMS=64
python experiments/t5x/collect.py runs/t5x
