#!/usr/bin/env bash
# Makes golden/starter anew: one small case per regime, four of them with chunk intermediates, one as a chain of states, every case of faults.txt
# and every one of properties/found_cases.txt. What is there and still right stays; what is not is written beside it as NAME.new.
#   golden/starter.sh [SET]      SET: another folder to write to
set -eu
set_of_cases=$(realpath -m -- "${1:-$(dirname -- "$0")/starter}")
cd -- "$(dirname -- "$0")/.."
status=0
make() { ./kdacheck golden generate "$set_of_cases" "$@" || status=$(($? > status ? $? : status)); }
make --dtype bf16
make --regime gaussian-keys --regime near-identical-keys --regime strong-decay --regime dplr-benign --intermediates 8
make --regime usual-decay --regime converged-memory --seed 2 --states
make --cases golden/faults.txt
make --found
exit "$status"
