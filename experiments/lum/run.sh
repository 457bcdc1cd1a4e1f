#!/bin/bash
# The study, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/lum/run.sh user_time 0 1 2        # the last tenth of each user for test, the tenth before it for validation
#   experiments/lum/run.sh global_time 0 1 2      # the last tenth of all events in time
#   experiments/lum/run.sh continued 0 1 2        # continued training of rankers (continued.gin), over the user models of user_time
#   experiments/lum/run.sh retrieval 0 1 2        # two towers without and with the answers, over the same
#   experiments/lum/run.sh user_time 0 -- --gin.SEQUENCE_EPOCHS=2    # more flags behind --
#
# DATA_DIR says where GroupLens's files are (by default they are fetched). Rows are written to results.jsonl, and to results_<what>.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
files=(--gin_file=experiments/lum/study.gin) split=(--gin.SPLIT='@splits.UserTime()') runs=runs/lum/user_time results=results_$what.jsonl
case $what in
  user_time) results=results.jsonl ;;
  global_time) files+=(--gin_file=experiments/lum/global_time.gin) split=() runs=runs/lum/global_time ;;
  continued) files+=(--gin_file=experiments/lum/continued.gin) ;;
  retrieval) files=(--gin_file=gin/run/lum_retrieval.gin --gin_file=gin/corpus/ml_1m.gin) ;;
  *) echo "expected user_time, global_time, continued or retrieval, got $what" >&2 && exit 1 ;;
esac
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
for seed in "${seeds[@]}"; do
  "${PLUM:-.venv/bin/plum}" "${files[@]}" "${split[@]}" --gin.SEED="$seed" ${DATA_DIR:+--gin.DATA_DIR="'$DATA_DIR'"} \
    --gin.MODEL_DIR="'$runs/$seed'" --gin.RESULTS_FILE="'experiments/lum/$results'" "${@:2}"
done
