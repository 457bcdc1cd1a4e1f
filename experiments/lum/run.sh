#!/bin/bash
# The study, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/lum/run.sh user_time 0 1 2        # the last tenth of each user for test, the tenth before it for validation
#   experiments/lum/run.sh global_time 0 1 2      # the last tenth of all events in time
#   experiments/lum/run.sh user_time 0 -- --gin.SEQUENCE_EPOCHS=2    # more flags behind --
#
# DATA_DIR says where GroupLens's files are (by default they are fetched). Rows are written to results.jsonl, or to results_global_time.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
declare -A SPLIT=([user_time]='@splits.UserTime()' [global_time]='@splits.GlobalTime()')
declare -A FILE=([user_time]=results.jsonl [global_time]=results_global_time.jsonl)
split=$1
shift
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
for seed in "${seeds[@]}"; do
  "${PLUM:-.venv/bin/plum}" --gin_file=experiments/lum/study.gin --gin.SPLIT="${SPLIT[$split]}" --gin.SEED="$seed" \
    ${DATA_DIR:+--gin.DATA_DIR="'$DATA_DIR'"} --gin.MODEL_DIR="'runs/lum/$split/$seed'" \
    --gin.RESULTS_FILE="'experiments/lum/${FILE[$split]}'" "${@:2}"
done
