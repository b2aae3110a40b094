#!/usr/bin/env bash
# Makes this folder anew: the gate on every built-in CPU kernel, long sequences, spectra, pictures, and what they were made from.
#   reports/cpu/make.sh [TOKENS]      TOKENS: of the longest sequence (default 131072)
# Everything is made beside and put in place at the end: a run that fails or is stopped before leaves the folder as it was.
set -eu -o pipefail
cd -- "$(dirname -- "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT TERM
measured='cpu.chunk64.fp32 cpu.chunk64.bf16 cpu.chunk64.bf16_state cpu.dplr.chunk64.fp32'
options=()
for kernel in $measured; do options+=(--kernel "$kernel"); done
step() { printf 'make.sh: %s (%d s)\n' "$1" "$SECONDS" >&2; }
python3 reports/cpu/stale.py . --digest >"$work/sources.sha256"
step 'gate on all CPU kernels'
./kdacheck verify --kernel 'cpu.*' --out "$work/run"
step "sequences of up to ${1:-131072} tokens"
./kdacheck measure "${options[@]}" --longest "${1:-131072}" --out "$work/run" | sed '/^series in/d' >"$work/drift.txt"
step 'times'
./kdacheck bench "${options[@]}" --out "$work/run" >/dev/null
step 'pictures'
./kdacheck report "$work/run" --figures "$work/figures"
[[ $(python3 reports/cpu/stale.py . --digest) == $(<"$work/sources.sha256") ]] || { echo 'make.sh: the sources changed meanwhile; nothing was replaced' >&2; exit 1; }
rm -f -- reports/cpu/sources.sha256 # comes back last: without it the reports count as missing
cp -- "$work/run/summary.md" "$work/drift.txt" reports/cpu/
rm -rf -- reports/cpu/figures
cp -r -- "$work/figures" reports/cpu/figures
cp -- "$work/sources.sha256" reports/cpu/
step 'done'
