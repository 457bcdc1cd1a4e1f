#!/bin/bash
# The study, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/days/run.sh movielens 0 1 2           # 13 minutes a seed on one core
#   experiments/days/run.sh simulator 0 1 2           # births and deaths, 4 minutes a seed
#   experiments/days/run.sh gap 0 1 2                 # the same, two days between what is learnt and what judges: results_gap.jsonl
#   experiments/days/run.sh movielens 0 -- --gin.PASSES=0.03     # more flags behind --
#
# DATA_DIR says where GroupLens's files are (by default they are fetched). Rows are written to results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
more=("${@:2}") corpus=$what rows=results
case $what in
  movielens) settings=(${DATA_DIR:+--gin.DATA_DIR="'$DATA_DIR'"}) ;;
  simulator) settings=() ;;
  gap) corpus=simulator rows=results_gap settings=(--gin.GAP=2 --gin.SCRATCH="()") ;;
  *) echo "expected movielens, simulator or gap, got $what" >&2 && exit 1 ;;
esac
for seed in "${seeds[@]}"; do
  "${PLUM:-.venv/bin/plum}" --gin_file=gin/run/days.gin --gin_file="experiments/days/$corpus.gin" --gin_file=gin/model/cpu_tiny.gin "${settings[@]}" \
    --gin.SEED="$seed" --gin.MODEL_DIR="'runs/days/$what/$seed'" --gin.RESULTS_FILE="'experiments/days/$rows.jsonl'" "${more[@]}"
done
