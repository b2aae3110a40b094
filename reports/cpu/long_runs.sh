#!/usr/bin/env bash
# What takes too long for a quick look: the factors z derived anew from every right kernel on every regime (SEEDS of each, about three
# minutes of one core), the oracle on 65,536 tokens of 96 heads (minutes on two cores), and SECONDS of search for the worst case of one
# kernel, forward and backward. Many cores are worth ten seeds and ten minutes of search. Every step writes OUT/STEP.txt and what its
# command writes; a step whose text is there is not run again.
#   reports/cpu/long_runs.sh OUT [SEEDS] [SECONDS] [KERNEL] [PROGRAM]
set -eu -o pipefail
out=$1 seeds=${2:-1} seconds=${3:-120} kernel=${4:-cpu.chunk64.bf16} program=${5:-$(dirname -- "$0")/../../kdacheck}
mkdir -p -- "$out"
{ grep -m1 'model name' /proc/cpuinfo && nproc; } >"$out/machine"

step() { # step NAME ARGUMENTS...: status 1 is a result (a kernel failed)
  local name=$1 status=0 begun=$SECONDS
  shift
  [[ -f $out/$name.txt ]] && return
  "$program" "$@" >"$out/$name.part" 2>"$out/$name.log" || status=$?
  if [[ ! $status =~ ^[01]$ ]]; then
    echo "failed with status $status: $name; see $out/$name.log" >&2
    return 1
  fi
  printf '%s\nstatus %d, %d s\n' "kdacheck $*" "$status" $((SECONDS - begun)) >>"$out/$name.part"
  mv -- "$out/$name.part" "$out/$name.txt"
  tail -n 2 -- "$out/$name.txt"
}

failed=0
step margins bench --margins --seeds "$seeds" --out "$out/margins" || failed=1
step long-oracle bench --long-oracle 96 --out "$out/long-oracle" || failed=1
for direction in forward backward; do
  step "search-$direction" search --kernel "$kernel" --direction "$direction" --seconds "$seconds" --save "$out/search-$direction" || failed=1
done
exit $failed
