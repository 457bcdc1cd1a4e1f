#!/bin/bash
# The study of MovieLens-1M, one variant after another, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/trunk/run.sh base 0 1 2          # and tokens4, tokens4_third, last, concat, latest, sliding, auxiliary, no_request
#   experiments/trunk/run.sh base 0 -- --gin.TRUNK_STEPS=100     # more flags behind --
#
# DATA_DIR says where GroupLens's files are (by default they are fetched). Rows are written to results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
variant=$1
shift
case $variant in
  base) flags=() ;;
  tokens4) flags=(--gin.TRUNK_TOKENS=4) ;;
  tokens4_third) flags=(--gin.TRUNK_TOKENS=4 --gin.TRUNK_FURTHER_WEIGHT=0.3) ;;
  last | concat) flags=(--gin.TRUNK_LAYER_MIX="'$variant'") ;;
  latest | sliding) flags=(--gin.TRUNK_WINDOWS="'$variant'") ;;
  auxiliary) flags=(--gin.TRUNK_AUXILIARY="{'genres': 0.1, 'rating': 0.1}") ;;
  no_request) flags=(--gin.TRUNK_REQUEST="()") ;;
  *) echo "expected base, tokens4, tokens4_third, last, concat, latest, sliding, auxiliary or no_request, got $variant" >&2 && exit 1 ;;
esac
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
for seed in "${seeds[@]}"; do
  "${PLUM:-.venv/bin/plum}" --gin_file=experiments/trunk/study.gin --gin.SPLIT='@splits.UserTime()' "${flags[@]}" --gin.SEED="$seed" \
    --gin.SYSTEMS="{'$variant': @trunk/trunk.Trunk()}" ${DATA_DIR:+--gin.DATA_DIR="'$DATA_DIR'"} --gin.MODEL_DIR="'runs/trunk/$seed'" \
    --gin.RESULTS_FILE="'experiments/trunk/results.jsonl'" "${@:2}"
done
