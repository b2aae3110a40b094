#pragma once
// The public calls of KDA's chunk kernels (kdacheck_cuda.h) on an emulated multiprocessor: tensors are host memory, checks are those of a
// device's call.

#include "../host/check.hpp"
#include "../tests/emulated_backward.hpp"
#include "../tests/emulated_forward.hpp"

namespace kdacheck::cuda::testing {

/// `run(K, half_precision)` with the room and the format of a call as constants.
template <int widest, class Run> void with_room(const ForwardArguments& args, Run run) {
  const auto with_format = [&]<int K> {
    args.qkv_format == Stored::fp16 ? run.template operator()<K, true>() : run.template operator()<K, false>();
  };
  if (args.K <= 64) return with_format.template operator()<64>();
  if (args.K <= 128) return with_format.template operator()<128>();
  if constexpr (widest > 128) with_format.template operator()<256>();
}

template <bool accurate> kdacheck_cuda_result emulated_forward(const kdacheck_cuda_problem& problem) {
  const CheckedCall call = check_call(accurate ? KDACHECK_CUDA_CHUNK_ACCURATE : KDACHECK_CUDA_CHUNK_FAST, &problem);
  if (call.result.status != KDACHECK_CUDA_OK) return call.result;
  EmulatedCut cut;
  cut.consumers = call.args.V / 16;
  for (int parts = 2; cut.consumers > 4; ++parts)
    if (call.args.V / 16 % parts == 0) cut.consumers = call.args.V / 16 / parts;
  with_room<accurate ? 128 : 256>(
      call.args, [&]<int K, bool half_precision> { emulate_forward<K, accurate ? mixed_terms : 1, half_precision>(call.args, cut); });
  return call.result;
}

template <bool accurate>
kdacheck_cuda_result emulated_backward(const kdacheck_cuda_problem& problem, const kdacheck_cuda_gradients& gradients) {
  const CheckedBackward call = check_backward(accurate ? KDACHECK_CUDA_CHUNK_ACCURATE : KDACHECK_CUDA_CHUNK_FAST, &problem, &gradients);
  if (call.result.status != KDACHECK_CUDA_OK) return call.result;
  constexpr int pieces = accurate ? 2 : 1;
  const ForwardArguments& args = call.args.call;
  with_room<accurate ? 128 : 256>(args, [&]<int K, bool half_precision> {
    const bool kept = backward_workspace(args, call.args.B, pieces, args.cu_seqlens != nullptr).stage_slots > 0;
    unsigned slices = 1;
    while (args.V / 16 % slices != 0 || args.V / 16 / slices > 4) ++slices;
    if constexpr (K <= 128)
      if (args.K == K) {
        emulate_backward<K, pieces, half_precision>(call.args, kept ? 0 : slices);
        return;
      }
    // As launched: fewer channels than 128 go through the kernel with room for 128.
    emulate_backward<K <= 128 ? 128 : K, pieces, half_precision, true>(call.args, slices);
  });
  return call.result;
}

} // namespace kdacheck::cuda::testing
