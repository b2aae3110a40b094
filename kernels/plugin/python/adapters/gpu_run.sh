#!/usr/bin/env bash
# gpu_run.sh PROGRAM OUT [SECONDS [OPTION...]]: judges flash-linear-attention's Triton kernels on this machine's CUDA device side by
# side for SECONDS (default 90; most of it is compilation), and leaves one folder of results per kernel in OUT. OPTIONs go to verify; KERNELS and THREADS (each kernel's) choose. PROGRAM is ./kdacheck or what carry.sh made.
# Needs PyTorch, Triton and fla-core (with einops) for the python3 in PATH.
set -u
program=$1 out=$2 seconds=${3:-90}
shift "$(($# < 3 ? $# : 3))"
export KDACHECK_PYTHON=${KDACHECK_PYTHON:-python3} KDACHECK_FLA_TUNE=${KDACHECK_FLA_TUNE:-no} KDACHECK_FLA_SIZES=${KDACHECK_FLA_SIZES:-K=64 V=64}
export PYTHONPATH=$(cd "$(dirname "$0")" && pwd)${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1
mkdir -p "$out"
"$KDACHECK_PYTHON" - <<'VERSIONS' | tee "$out/versions.txt"
import importlib.metadata as installed
import torch
print(torch.cuda.get_device_name(), *(f"{n} {installed.version(n)}" for n in ("torch", "triton", "fla-core")), sep=", ")
VERSIONS
kernels="${KERNELS:-chunk_kda fused_recurrent_kda chunk_dplr chunk_dplr_tf32_sums chunk_dplr_bounded}"
for kernel in $kernels; do
  (
    "$program" verify --python "fla_triton:$kernel" --threads "${THREADS:-4}" --call-timeout 120 --time-budget "$seconds" --shrink-seconds 3 \
      "$@" --out "$out/$kernel" > "$out/$kernel.txt" 2> "$out/$kernel.progress"
    echo $? > "$out/$kernel.status"
  ) &
done
wait
worst=0
for kernel in $kernels; do
  status=$(cat "$out/$kernel.status")
  echo "$kernel: status $status"
  tail -n 6 "$out/$kernel.txt"
  [ "$status" -gt "$worst" ] && worst=$status
done
exit "$worst"
