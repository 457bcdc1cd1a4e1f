#!/bin/bash
# The study. What is finished is not run again, what was killed goes on.
#
#   experiments/m6rec/run.sh main 0 1 2           # by text and by ids, from the same 10,000 labels
#   experiments/m6rec/run.sh all_labels 0 1 2     # DIN with all labels
#   experiments/m6rec/run.sh late 0 1 2           # then, over the same runs: late interaction, texts without statistics
#   experiments/m6rec/run.sh exits 0 1 2
#   experiments/m6rec/run.sh small 0 1 2          # pruned, 8 bits, shared layers, a narrow table
#   experiments/m6rec/run.sh tuning 0 1 2         # zero-shot, and beside a trunk at rest
#   experiments/m6rec/run.sh imported 0           # another program's language model to begin with: PRETRAINED
#   experiments/m6rec/run.sh write 0 1 2          # explanations and answers by the trunk of `main`
#   experiments/m6rec/run.sh retrieval 0 1 2      # on Amazon Beauty, a tenth of the items held out
#   experiments/m6rec/run.sh main 0 -- --gin.M6_EPOCHS=2.0      # more flags behind --
#
# DATA_DIR (GroupLens's MovieLens-1M; by default it is fetched) and BEAUTY_DIR say where the data are; PRETRAINED by default is
# karpathy/tinyllamas' data/stories260K.bin with tok512.bin beside it. Rows are written to results.jsonl, and to results_<what>.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1
shift
beauty=${BEAUTY_DIR:-data/amazon_beauty} runs=runs/m6rec results=experiments/m6rec/results
movies=(${DATA_DIR:+--gin.DATA_DIR="'$DATA_DIR'"})
seeds=()
while [[ $# -gt 0 && $1 != -- ]]; do seeds+=("$1") && shift; done
plum=${PLUM:-.venv/bin/plum}
for seed in "${seeds[@]}"; do
  [[ $what = all_labels ]] && place=all_labels/ || place=
  [[ $what = imported ]] && model=(--gin.PRETRAINED="'${PRETRAINED:-data/stories260K.bin}'") || model=()
  case $what in
    main | all_labels | late | exits | small | tuning | imported)
      "$plum" --gin_file="experiments/m6rec/$what.gin" "${movies[@]}" "${model[@]}" --gin.SEED="$seed" \
        --gin.MODEL_DIR="'$runs/$place$seed'" --gin.RESULTS_FILE="'$results.jsonl'" "${@:2}" ;;
    write)
      for kind in explanation conversation; do
        "$plum" --gin_file=experiments/m6rec/write.gin "${movies[@]}" --gin.SEED="$seed" --gin.KIND="'$kind'" \
          --gin.MODEL_DIR="'$runs/$seed'" --gin.RESULTS_FILE="'${results}_write.jsonl'" "${@:2}"
      done ;;
    retrieval)
      "$plum" --gin_file=experiments/m6rec/retrieval.gin --gin.DATA_DIR="'$beauty'" --gin.SEED="$seed" \
        --gin.MODEL_DIR="'$runs/retrieval/$seed'" --gin.RESULTS_FILE="'${results}_retrieval.jsonl'" "${@:2}" ;;
    *) echo "expected main, all_labels, late, exits, small, tuning, imported, write or retrieval, got $what" >&2 && exit 1 ;;
  esac
done
