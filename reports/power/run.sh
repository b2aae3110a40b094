#!/usr/bin/env bash
# The campaign behind this folder: every planted fault on ten seeds, every correct variant in at least 1,000 cases, every legal
# rounding on two seeds, and the detection limits of every contract on two seeds. One process and one thread per seed of faults, per
# kernel, and per contract and regime of the limits; what is there already is not run again. Page and power.json are made of OUT by
#   python3 reports/power/page.py make . OUT
#   reports/power/run.sh OUT [PROCESSES] [PROGRAM]
set -eu -o pipefail
out=$1 processes=${2:-$(nproc)} program=${3:-$(dirname -- "$0")/../../kdacheck}
mkdir -p -- "$out"
grep -m1 'model name' /proc/cpuinfo >"$out/machine"
python3 "$(dirname -- "$0")/page.py" digest "$(dirname -- "$0")/../.." >"$out/sources"
one_fault=(--fault output-bf16 --threads 1)

# The names of all right kernels, from the smallest run there is.
"$program" gate-power "${one_fault[@]}" --property agrees-with-the-oracle --regime narrow --out "$out/names" >/dev/null || [[ $? -eq 1 ]]
mapfile -t names < <(python3 -c '
import json, sys
power = json.load(open(sys.argv[1]))
print(*[kernel["name"] for kind in ("correct", "legal") for kernel in power[kind]], sep="\n")' "$out/names/power.json")

# Contracts and regimes of the limits, as `gate-power --limits` takes them without a choice.
mapfile -t cells < <("$program" gate-power --limits --list)

job() { # job FOLDER ARGUMENTS...: status 1 is a result, and 5 where a contract's domain leaves a regime out
  local folder=$1 status=0
  shift
  [[ -f $folder/power.json ]] && return
  "$program" gate-power --threads 1 --out "$folder" "$@" >"$folder.txt" 2>&1 || status=$?
  [[ $status =~ ^[015]$ ]] || echo "failed: $folder" >&2
}
export -f job
export program
{
  for seed in {1..10}; do printf '%s\0' "job '$out/faults-$seed' --seed $seed --kernel 'legal.split-exponent.*'"; done
  for i in "${!cells[@]}"; do
    read -r kernel regime <<<"${cells[i]}"
    printf '%s\0' "job '$out/limits-$i' --limits --seeds 2 --kernel $kernel --regime $regime"
  done
  for i in "${!names[@]}"; do
    seeds=1
    [[ ${names[i]} == legal.* ]] && seeds=2
    printf '%s\0' "job '$out/right-$i' --fault output-bf16 --kernel '${names[i]}' --seeds $seeds --correct-runs 1000"
  done
} | xargs -0 -n1 -P"$processes" bash -c
