#!/bin/bash
# Retrieval fine-tuning under plum and under T5X: the same records, steps, optimizer and decoder; then recall@10.
#   experiments/t5x/run.sh
# Needs T5X (docs/t5x.md). Writes runs/t5x/ and experiments/t5x/results.jsonl.
set -e
PLUM=${PLUM:-.venv/bin/plum}
FILES="--gin_file=gin/corpus/ml_100k.gin --gin_file=gin/model/cpu_tiny.gin --gin_file=experiments/t5x/sizes.gin"
MODEL="--gin_file=gin/model/cpu_tiny.gin"
RUN="--gin.RUN_DIR='$PWD/runs/t5x/plum'"
TRAIN="--gin.TRAIN_STEPS=300 --gin.BATCH_SIZE=32 --gin.LENGTH=160 --gin.LEARNING_RATE=3e-3 --gin.NUM_BEAMS=64"
PERIODS="--gin.CHECKPOINT_PERIOD=300 --gin.EVAL_PERIOD=300"

# With dropout, each program with its own data pipeline and random numbers.
$PLUM --gin_file=gin/run/pipeline.gin $FILES --gin.MODEL_DIR="'runs/t5x/plum'"
python -m t5x.train --gin_file=gin/t5x/finetune.gin $MODEL $RUN --gin.MODEL_DIR="'$PWD/runs/t5x/seqio'" $TRAIN $PERIODS
python -m t5x.eval --gin_file=gin/t5x/eval.gin $MODEL $RUN --gin.NUM_BEAMS=64 \
  --gin.CHECKPOINT_PATH="'$PWD/runs/t5x/seqio/checkpoint_300'" --gin.EVAL_OUTPUT_DIR="'$PWD/runs/t5x/seqio_test'"

# Without, from the same parameters and on the same batches.
$PLUM --gin_file=gin/run/pipeline.gin $FILES --gin.MODEL_DIR="'runs/t5x/plum_same'" --gin.DROPOUT=0.0
python -m t5x.train --gin_file=gin/t5x/finetune.gin --gin_file=gin/t5x/own_feed.gin $MODEL $RUN $TRAIN $PERIODS \
  --gin.MODEL_DIR="'$PWD/runs/t5x/own_feed'" --gin.PHASE="'retrieval'" --gin.INIT_SEED=0 --gin.DROPOUT=0.0
python -m t5x.eval --gin_file=gin/t5x/eval.gin $MODEL $RUN --gin.NUM_BEAMS=64 \
  --gin.CHECKPOINT_PATH="'$PWD/runs/t5x/own_feed/checkpoint_300'" --gin.EVAL_OUTPUT_DIR="'$PWD/runs/t5x/own_feed_test'"

python experiments/t5x/collect.py runs/t5x
python experiments/t5x/steps.py runs/t5x/plum
