#pragma once
// Fourth pass of the backward pass: d dt_bias and d A_log of one value head, sums over the slots of segments in a fixed order.

#include "../device/warp.cuh"
#include "../host/arguments.hpp"

namespace kdacheck::cuda {

inline constexpr int parameter_groups = 4; ///< each takes every fourth slot; then they are added in order

/// Shared memory: [groups][K + 1] doubles. Threads: a multiple of 32 times the groups.
__device__ __forceinline__ void parameters_block(const ParameterArguments& args, unsigned threads) {
  const int head = static_cast<int>(block_index()), width = static_cast<int>(threads) / parameter_groups;
  const int group = static_cast<int>(thread_index()) / width, first = static_cast<int>(thread_index()) % width;
  const Address base = shared_base();
  for (int channel = first; channel <= args.K; channel += width) {
    const float* from = channel < args.K ? args.partial_bias + static_cast<std::int64_t>(head) * args.K + channel : args.partial_A + head;
    const std::int64_t stride = channel < args.K ? static_cast<std::int64_t>(args.HV) * args.K : args.HV;
    double sum = 0;
    for (std::int64_t slot = group; slot < args.segment_slots; slot += parameter_groups) sum += static_cast<double>(from[slot * stride]);
    store_shared(base + 8 * (group * (args.K + 1) + channel), sum);
  }
  sync_block();
  if (group != 0) return;
  for (int channel = first; channel <= args.K; channel += width) {
    double sum = 0;
    for (int part = 0; part < parameter_groups; ++part) sum += load_shared_double(base + 8 * (part * (args.K + 1) + channel));
    constexpr double most = 3.38e38;
    const auto total = static_cast<float>(sum > most ? most : sum < -most ? -most : sum);
    if (channel == args.K) {
      if (args.d_A_log != nullptr) args.d_A_log[head] = total;
    } else if (args.d_dt_bias != nullptr) {
      args.d_dt_bias[static_cast<std::int64_t>(head) * args.K + channel] = total;
    }
  }
}

} // namespace kdacheck::cuda
