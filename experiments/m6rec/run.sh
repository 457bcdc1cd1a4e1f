#!/bin/bash
# The study. What is finished is not run again, what was killed goes on.
#
#   experiments/m6rec/run.sh rankers 0            # all rows, from the same 10,000 labels
#   experiments/m6rec/run.sh main 1 2             # the main rows with other draws and seeds
#   experiments/m6rec/run.sh all_labels 0 1 2     # DIN with all labels
#   experiments/m6rec/run.sh write 0              # explanations and answers by the trunk of `rankers` or `main`
#   experiments/m6rec/run.sh retrieval 0 1 2      # on Amazon Beauty, a tenth of the items held out
#   experiments/m6rec/run.sh rankers 0 -- --gin.M6_EPOCHS=2.0      # more flags behind --
#
# DATA_DIR (GroupLens's MovieLens-1M; by default it is fetched) and BEAUTY_DIR say where the data are. Rows are written to results.jsonl, and to results_<what>.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
beauty=${BEAUTY_DIR:-data/amazon_beauty} runs=runs/m6rec results=experiments/m6rec/results
movies=(${DATA_DIR:+--gin.DATA_DIR="'$DATA_DIR'"})
declare -A files=([rankers]=study [main]=main [all_labels]=all_labels) places=([rankers]= [main]= [all_labels]=all_labels/)
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
plum=${PLUM:-.venv/bin/plum}
for seed in "${seeds[@]}"; do
  case $what in
    rankers | main | all_labels)
      "$plum" --gin_file="experiments/m6rec/${files[$what]}.gin" "${movies[@]}" --gin.SEED="$seed" \
        --gin.MODEL_DIR="'$runs/${places[$what]}$seed'" --gin.RESULTS_FILE="'$results.jsonl'" "${@:2}" ;;
    write)
      for kind in explanation conversation; do
        "$plum" --gin_file=experiments/m6rec/write.gin "${movies[@]}" --gin.SEED="$seed" --gin.KIND="'$kind'" \
          --gin.MODEL_DIR="'$runs/$seed'" --gin.RESULTS_FILE="'${results}_write.jsonl'" "${@:2}"
      done ;;
    retrieval)
      "$plum" --gin_file=experiments/m6rec/retrieval.gin --gin.DATA_DIR="'$beauty'" --gin.SEED="$seed" \
        --gin.MODEL_DIR="'$runs/retrieval/$seed'" --gin.RESULTS_FILE="'${results}_retrieval.jsonl'" "${@:2}" ;;
    *) echo "expected rankers, main, all_labels, write or retrieval, got $what" >&2 && exit 1 ;;
  esac
done
