#!/usr/bin/env bash
# Makes golden/starter anew: one small case per regime, four of them with chunk intermediates, two as chains of states, and every case of faults.txt.
set -eu
cd -- "$(dirname -- "$0")/.."
./kdacheck golden generate golden/starter --dtype bf16
for regime in gaussian-keys near-identical-keys strong-decay dplr-benign; do
  ./kdacheck golden generate golden/starter --regime "$regime" --intermediates 8
done
for regime in usual-decay converged-memory; do
  ./kdacheck golden generate golden/starter --regime "$regime" --seed 2 --states
done
while read -r name dtype token; do
  [[ $name == \#* ]] || ./kdacheck golden generate golden/starter --name "$name" --dtype "$dtype" --token "$token"
done <golden/faults.txt
