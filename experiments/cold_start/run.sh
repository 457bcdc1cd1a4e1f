#!/bin/bash
# One system of the study, seed by seed: the study of accuracy on MovieLens-1M, with study.gin behind its files.
#
#   experiments/cold_start/run.sh item_history 0 1 2
study=cold_start
source "$(dirname "$0")/../accuracy/run.sh" ml_1m "$@"
