#!/usr/bin/env bash
# sanitize.sh PROGRAM OUT [SECONDS [RACECHECK]]: PROGRAM (kdacheck_cuda_check) under compute-sanitizer's tools on a small full set, side by
# side, each for SECONDS (default 140) at most; logs in OUT, a line for each run on standard output. Exit status: 0 no error anywhere, 1
# some, 3 no tool.
#
# racecheck follows accesses to shared memory through as many barriers in memory as it is told of: the ring of a chunk kernel has more than it
# expects by itself. It takes an arrival for one lane's, so that it is given RACECHECK (kdacheck_cuda_racecheck, the same kernels where every
# lane arrives; default PROGRAM). It runs on regimes of few tokens, one process each, and its reports are counted by the two places that they name.
set -u
program=$1 out=$2 seconds=${3:-140} racecheck=${4:-$1}
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -1)
[ -n "$sanitizer" ] || { echo "no compute-sanitizer here" >&2; exit 3; }
mkdir -p "$out"
knows() { "$sanitizer" --help 2>&1 | grep -q -- "$1"; }
barriers=()
knows --num-cuda-barriers && barriers=(--num-cuda-barriers 256)
indirect=()
knows --racecheck-indirect-barrier-dependency && indirect=(--racecheck-indirect-barrier-dependency yes)

run() { # run NAME TOOL-OPTIONS -- PROGRAM-OPTIONS
  local name=$1 tool=() of=$program
  [[ $name = racecheck* ]] && of=$racecheck
  shift
  while [ "$1" != -- ]; do tool+=("$1"); shift; done
  shift
  timeout "$seconds" "$sanitizer" --print-limit 100000 "${tool[@]}" "$of" "$@" > "$out/$name.log" 2>&1
  echo "$? $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/$name.log" | tail -n 1)" > "$out/$name.status"
}

names=()
start() { names+=("$1"); run "$@" & }
for tool in memcheck synccheck initcheck; do
  more=()
  [ "$tool" = synccheck ] && more=("${barriers[@]}")
  [ "$tool" = memcheck ] && more=(--report-api-errors no) # launches that are made to fail; the program itself looks at every call's answer
  start "$tool" --tool "$tool" "${more[@]}" -- --small
done
for regime in "1 token" "8 tokens" "3 tokens" "no gate" "packed" "DPLR V 48" "DPLR 1 token"; do
  start "racecheck_${regime// /_}" --tool racecheck "${barriers[@]}" "${indirect[@]}" -- --quick --no-time --no-behaviour --regime "$regime"
done
wait
worst=0
for name in "${names[@]}"; do
  read -r status summary < "$out/$name.status"
  [ "$status" = 124 ] && summary="not at its end after $seconds s${summary:+; $summary}"
  echo "$name: status $status, ${summary:-no summary}"
  [ "$status" = 0 ] && grep -qE 'SUMMARY: 0 (errors|hazards)' <<< "$summary" || worst=1
done
for name in "${names[@]}"; do
  [[ $name = racecheck* ]] || continue
  # Places without addresses, threads and processes, most frequent first.
  grep -oE '(Error|Warning): Race reported.*|(Write|Read) access.*' "$out/$name.log" | sed -E 's/0x[0-9a-f]+//g; s/[(][0-9, ]+[)]//g' | sort | uniq -c | sort -rn | head -n 12 |
    sed "s/^/$name /" | cut -c 1-300
done
exit "$worst"
