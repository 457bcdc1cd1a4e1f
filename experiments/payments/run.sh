#!/bin/bash
# The study, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/payments/run.sh simulator 0 1 2     # the simulator's seed is that of the run
#   experiments/payments/run.sh sequences 0 1 2     # which sequences to follow, over the runs of simulator
#   experiments/payments/run.sh handbook 0 1 2      # DATA_DIR has transactions.parquet
#   experiments/payments/run.sh terminals 0 1 2     # sequences of terminals, over the runs of handbook
#   experiments/payments/run.sh handbook 0 -- --gin.LABEL_SHARES="(1.0,)"    # more flags behind --
#
# Rows are written to results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
case $what in
  simulator | sequences) more=() ;;
  handbook | terminals) more=(--gin.DATA_DIR="'${DATA_DIR:-data/payments}'") ;;
  *) echo "expected simulator, sequences, handbook or terminals, got $what" >&2 && exit 1 ;;
esac
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
for seed in "${seeds[@]}"; do
  [[ $what == s* ]] && more=(--gin.SIMULATOR_SEED="$seed")
  runs=${what/sequences/simulator} runs=${runs/terminals/handbook}
  "${PLUM:-.venv/bin/plum}" --gin_file=experiments/payments/study.gin --gin_file="experiments/payments/$what.gin" \
    --gin.SEED="$seed" "${more[@]}" --gin.MODEL_DIR="'runs/payments/$runs/$seed'" \
    --gin.RESULTS_FILE="'experiments/payments/results.jsonl'" "${@:2}"
done
