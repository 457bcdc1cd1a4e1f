#!/bin/bash
# The study, seed by seed. What is finished is not run again, what was killed goes on.
#
#   experiments/trunk/run.sh next 0 1 2           # next items and later ones, all variants of study.gin
#   experiments/trunk/run.sh small 0 1 2          # the same on MovieLens-100K, which is fetched
#   experiments/trunk/run.sh rank 0 1 2           # rankers on top of the trunks of `next`
#   experiments/trunk/run.sh liked 0 1 2          # extracted and fine-tuned to what is liked
#   experiments/trunk/run.sh versions 1 2         # vectors of the trunk of seed 0, and of these seeds in its place; VARIANT=last, concat: of those
#   experiments/trunk/run.sh cold 0 1 2           # films that arrive after training, by the age of items
#   experiments/trunk/run.sh scaling              # sizes and numbers of events, and what each gives to applications
#   experiments/trunk/run.sh next 0 -- --gin.TRUNK_STEPS=100     # more flags behind --
#
# DATA_DIR says where GroupLens's files are (by default they are fetched). Rows are written to results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
more=("${@:2}") runs=runs/trunk data=(${DATA_DIR:+--gin.DATA_DIR="'$DATA_DIR'"}) results=--gin.RESULTS_FILE="'experiments/trunk/results.jsonl'"
variant=${VARIANT:-base}
declare -A MIX=([base]=mixture [last]=last [concat]=concat)
declare -A FILES=([next]=study [rank]=rank [liked]=liked [cold]=cold)
run() { "${PLUM:-.venv/bin/plum}" "$@" "${more[@]}"; }
vectors() {
  run --gin_file=gin/run/trunk_embed.gin --gin_file=experiments/trunk/sizes.gin --gin.SPLIT='@splits.UserTime()' "${data[@]}" --gin.SEED="$1" \
    --gin.MODEL_DIR="'$runs/$1'" --gin.TRUNK_NAME="'$variant'" --gin.TRUNK_LAYER_MIX="'${MIX[$variant]}'"
}
[[ $what != versions ]] || vectors 0
if [[ $what == scaling ]]; then
  study=(--gin_file=gin/corpus/ml_1m.gin --gin_file=gin/study/trunk.gin --gin_file=experiments/trunk/scaling.gin "${data[@]}" --gin.STUDY_DIR="'runs/trunk_scaling'")
  run --gin_file=gin/run/study_plan.gin "${study[@]}"
  run --gin_file=gin/run/study_run.gin "${study[@]}"
  run --gin_file=gin/run/study_gains.gin "${study[@]}" --gin.RESULTS_FILE="'experiments/trunk/scaling.jsonl'"
  exit
fi
for seed in "${seeds[@]}"; do
  case $what in
    small)
      run --gin_file=experiments/trunk/study.gin --gin_file=gin/corpus/ml_100k.gin --gin.SPLIT='@splits.UserTime()' --gin.SEED="$seed" \
        --gin.MODEL_DIR="'runs/trunk_small/$seed'" "$results"
      ;;
    next | rank | liked | cold)
      [[ $what != cold ]] || runs=runs/trunk_cold
      run --gin_file="experiments/trunk/${FILES[$what]}.gin" "${data[@]}" --gin.SEED="$seed" --gin.MODEL_DIR="'$runs/$seed'" "$results"
      ;;
    versions)
      vectors "$seed"
      run --gin_file=gin/run/trunk_versions.gin --gin.FIRST="'$runs/0/embeddings/$variant'" \
        --gin.SECOND="'$runs/$seed/embeddings/$variant'" --gin.ROW="'versions_$variant'" --gin.SEED="$seed" \
        --gin.MODEL_DIR="'$runs/versions/$variant/$seed'" "$results"
      ;;
    *) echo "expected next, small, rank, liked, versions, cold or scaling, got $what" >&2 && exit 1 ;;
  esac
done
