#pragma once
// The chunk kernel's forward pass on an emulated multiprocessor.

#include "../chunk/chunk_producer.cuh"

#include <algorithm>
#include <vector>

namespace kdacheck::cuda::testing {

/// How a block is cut, as ChunkShape; `gangs` > 0: the chunks of all units are dealt out to that many.
struct EmulatedCut {
  int consumers = 1, producers = 2, stages = 3;
  unsigned sharing = 1;
  int gangs = 0;
};

/// Block by block, by a kernel that has room for K channels; a call of fewer takes the narrow one.
template <int K, int pieces, bool half_precision> void emulate_forward(ForwardArguments args, EmulatedCut cut) {
  args.slices = args.V / 16 / cut.consumers, args.consumer_warps = cut.consumers, args.producer_warps = cut.producers;
  args.stages = cut.stages;
  args.sharing = static_cast<int>(cut.sharing);
  args.staged = cut.sharing > 2;
  const std::int64_t chunks = (args.T + chunk_tokens - 1) / chunk_tokens, units = args.N * args.HV;
  std::vector<unsigned char> handover;
  if (cut.gangs > 0) {
    args.share = static_cast<int>((units * chunks + cut.gangs - 1) / cut.gangs);
    const std::size_t head = handover_head_bytes;
    handover.assign(head + static_cast<std::size_t>(cut.gangs) * static_cast<std::size_t>(K * args.V) * 4 + 255, 0xff);
    args.handover = handover.data() + (256 - reinterpret_cast<std::uintptr_t>(handover.data()) % 256) % 256;
    std::fill(args.handover, args.handover + head, static_cast<unsigned char>(0));
  }
  const auto blocks = static_cast<unsigned>((cut.gangs > 0 ? cut.gangs : units) * args.slices);
  const int shared =
      chunk_shared_bytes<K, pieces>(cut.stages, cut.producers, cut.consumers, args.gate_format == Stored::fp32 ? 4 : 2, args.staged);
  for (unsigned block = 0; block < blocks; block += cut.sharing)
    simt::run_cluster(block, cut.sharing, static_cast<unsigned>(32 * (cut.consumers + cut.producers)), static_cast<std::size_t>(shared),
                      [&] {
                        if (args.K != K) return chunk_forward_block<K, pieces, half_precision, false, true>(args);
                        if constexpr (K <= 128) {
                          if (cut.gangs > 0)
                            chunk_forward_block<K, pieces, half_precision, true>(args);
                          else
                            chunk_forward_block<K, pieces, half_precision, false>(args);
                        }
                      });
}

} // namespace kdacheck::cuda::testing
