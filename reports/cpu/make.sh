#!/usr/bin/env bash
# Makes this folder anew: the gate on every built-in CPU kernel, long sequences, spectra, pictures, and what they were made from.
#   reports/cpu/make.sh [TOKENS]      TOKENS: of the longest sequence (default 131072; an hour on a busy machine)
set -eu -o pipefail
cd -- "$(dirname -- "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
measured='cpu.chunk64.fp32 cpu.chunk64.bf16 cpu.chunk64.bf16_state cpu.dplr.chunk64.fp32'
options=()
for kernel in $measured; do options+=(--kernel "$kernel"); done
./kdacheck verify --kernel 'cpu.*' --out "$work"
./kdacheck measure "${options[@]}" --longest "${1:-131072}" --out "$work" | sed '/^series in/d' >"$work/drift.txt"
./kdacheck bench "${options[@]}" --out "$work" >/dev/null
./kdacheck report "$work" --figures "$work/figures"
cp -- "$work/summary.md" "$work/drift.txt" reports/cpu/
rm -rf -- reports/cpu/figures
cp -r -- "$work/figures" reports/cpu/figures
python3 reports/cpu/stale.py . --record
