#pragma once
// Producer warps and the ring of stages: which chunks a warp prepares (chunk_prepare.cuh), and when.

#include "chunk_consumer.cuh"
#include "chunk_prepare.cuh"
#include "chunk_rows.cuh"

namespace kdacheck::cuda {

/// Waits until this block may write round `round` of a stage: it has written the round before (a barrier tells only odd from
/// even rounds, and producers may be more than a round apart), and all consumers have given that back.
__device__ __forceinline__ void await_turn(const Ring& ring, int stage, int round) {
  word_wait(ring.rounds(stage), static_cast<std::uint32_t>(round));
  if (round > 0) barrier_wait(ring.empty(stage), (round - 1) & 1);
}

/// Waits until all consumers have given back what this block wrote in that round, or a later one.
__device__ __forceinline__ void await_consumed(const Ring& ring, int stage, int round) {
  while (load_shared_word(ring.rounds(stage)) == static_cast<std::uint32_t>(round + 1) && !barrier_test(ring.empty(stage), round & 1)) {
  }
}

/// Gives a stage prepared at `from` to the consumers of all blocks of the cluster: copied here by the warp if it was not
/// prepared in place, sent to rank r by lane r.
template <int bytes> __device__ __forceinline__ void send_stage(const Ring& ring, Address from, int stage, bool staged, unsigned lane) {
  const Address place = ring.stages + stage * bytes;
  if (lane < ring.sharing && lane != ring.rank) {
    const Address full = remote_address(ring.full(stage), lane);
    barrier_expect_remote(full, bytes);
    copy_remote(remote_address(place, lane), from, bytes, full);
  }
  if constexpr (warp_arrivals > 1) // whoever has not said how many bytes are on their way
    for (unsigned rank = 0; rank < ring.sharing; ++rank)
      if (rank != ring.rank && rank != lane) barrier_arrive_remote(remote_address(ring.full(stage), rank));
  if (staged) {
    for (int at = 16 * static_cast<int>(lane); at < bytes; at += 512) {
      std::uint32_t words[4];
      load_shared_quad(words, from + at);
      store_shared(place + at, words);
    }
  }
  sync_warp();
  if (speaks(lane)) barrier_arrive(ring.full(stage));
}

/// Every `step`-th chunk of a gang's from `first` on; those of a unit are counted from its end in the adjoint sweep. `staging`: room
/// for a stage, if args.staged.
template <int K, int pieces, bool half_precision, Sweep sweep, bool dealt, bool narrow = false>
__device__ void produce_all(const ForwardArguments& args, const Ring& ring, Address bench, Address staging, int gang, int first, int step,
                            unsigned lane) {
  using Bench = WorkbenchLayout<K, pieces>;
  constexpr int stage_bytes = StageLayout<K, pieces, sweep>::bytes;
  int turn = first; // of the gang's chunks, this warp's next one
  Stretch stretch;
#pragma unroll 1
  for (int number = 0; stretch_of<dealt>(args, gang, number, stretch); ++number) {
    const int head = stretch.unit % args.HV, head_q = head / (args.HV / args.H);
    const Span span = span_of(args, stretch.unit / args.HV);
    const HeadGate gate = gate_of(args, head);
    for (unsigned c = lane; c < K; c += 32)
      store_shared(bench + Bench::biases + 4 * c, args.dt_bias != nullptr && (!narrow || static_cast<int>(c) < args.K)
                                                      ? args.dt_bias[static_cast<std::int64_t>(head) * channels_of<K, narrow>(args) + c]
                                                      : 0.0f);
    const auto place_of = [&](int chunk) { return sweep == Sweep::adjoint ? stretch.chunks - 1 - chunk : chunk; };
    const int shifted = stretch.first - stretch.done; // from a turn to the unit's chunk
    if (turn + shifted < stretch.last)
      fetch_rows<K, pieces, sweep, narrow>(args, bench, span, place_of(turn + shifted), head, head_q, lane);
    for (; turn + shifted < stretch.last; turn += step) {
      const int chunk = turn + shifted;
      const std::int64_t start = static_cast<std::int64_t>(place_of(chunk)) * chunk_tokens, left = span.length - start;
      const int tokens = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;
      const bool has_token = static_cast<int>(lane) < tokens;
      const std::uint32_t beta_bits =
          has_token ? load_bits(args.beta.data, row_of(args.beta, span.batch, span.first + start + lane, head), args.beta_format) : 0;
      copy_async_wait<0>();
      sync_warp();
      normalise<K, pieces, half_precision, sweep>(args, bench, lane);
      if (lane < 16)
        store_shared(bench + Bench::norms + 128 + 4 * lane,
                     has_token ? step_size(args.beta_form, number_of(beta_bits, args.beta_format)) : 0.0f);
      sync_warp();
      const int stage = turn % ring.count, round = turn / ring.count;
      const auto await_stage = [&] {
        if (!args.staged)
          await_turn(ring, stage, round);
        else if (turn >= step)
          await_consumed(ring, (turn - step) % ring.count, (turn - step) / ring.count);
      };
      const auto begin_next = [&] {
        if (chunk + step < stretch.last)
          fetch_rows<K, pieces, sweep, narrow>(args, bench, span, place_of(chunk + step), head, head_q, lane);
      };
      const Address place = args.staged ? staging : ring.stages + stage * stage_bytes;
      produce<K, pieces, half_precision, sweep, narrow>(args, bench, place, gate, bench + Bench::biases, tokens, lane, begin_next,
                                                        await_stage);
      if (ring.sharing > 1) fence_async();
      sync_warp();
      if (args.staged) {
        await_turn(ring, stage, round);
        sync_warp();
      }
      send_stage<stage_bytes>(ring, place, stage, args.staged, lane);
      sync_warp();
      if (lane == 0) word_set(ring.rounds(stage), static_cast<std::uint32_t>(round + 1));
    }
    if constexpr (!dealt) break;
  }
}

/// What a warp of a block does. `paired`: of eight, half of them consumers, two of a kind share a scheduler and the instructions that lie
/// there (warp w is the (w % 4)-th scheduler's).
struct WarpRole {
  bool consumes;
  int number; ///< among the warps of its kind
};
template <bool paired> __device__ __forceinline__ WarpRole role_of(int warp, int consumers, int producers) {
  if (paired && consumers == 4 && producers == 4) return {warp % 4 < 2, warp / 4 * 2 + warp % 2};
  return warp < consumers ? WarpRole{true, warp} : WarpRole{false, warp - consumers};
}

/// A block: a gang's, or a slice of one unit's value columns. `produce_part` runs a producer warp, given the ring, its bench, the number
/// of its gang, and its number among the gang's producers; `consume_part` a consumer warp, given the ring, its area, the gang and its first
/// column. `staging_bytes`: of a producer, beside the ring.
template <bool dealt, bool paired = false, class Produce, class Consume>
__device__ __forceinline__ void gang_block(const ForwardArguments& args, int stage_bytes, int bench_bytes, int staging_bytes,
                                           Produce produce_part, Consume consume_part) {
  const unsigned warp = thread_index() / 32, lane = thread_index() % 32;
  const int slice = static_cast<int>(block_index() % args.slices);
  const bool sharing = args.sharing > 1;
  const Address base = shared_base(), number = base + barrier_bytes;
  const Ring ring{base, base + header_bytes, args.stages, static_cast<unsigned>(args.sharing), sharing ? cluster_rank() : 0};
  const Address stagings = ring.stages + args.stages * stage_bytes;
  const Address benches = stagings + args.producer_warps * staging_bytes;
  const Address areas = benches + args.producer_warps * bench_bytes;
  if (thread_index() == 0) {
    for (int stage = 0; stage < args.stages; ++stage) {
      barrier_init(ring.full(stage), warp_arrivals);
      barrier_init(ring.empty(stage), static_cast<unsigned>(args.consumer_warps * args.sharing) * warp_arrivals);
      store_shared(ring.rounds(stage), std::uint32_t{0});
    }
    if (dealt && ring.rank == 0) store_shared(number, take_ticket(args.handover));
  }
  sync_block();
  if (sharing) sync_cluster();
  const auto gang = static_cast<int>(!dealt    ? block_index() / static_cast<unsigned>(args.slices)
                                     : sharing ? load_remote_word(remote_address(number, 0))
                                               : load_shared_word(number));
  const WarpRole role = role_of<paired>(static_cast<int>(warp), args.consumer_warps, args.producer_warps);
  if (role.consumes) {
    const int column = (slice * args.consumer_warps + role.number) * 16;
    consume_part(ring, areas + role.number * consumer_bytes, gang, column, lane);
  } else {
    const int producer = role.number;
    produce_part(ring, benches + producer * bench_bytes, stagings + producer * staging_bytes, gang,
                 static_cast<int>(ring.rank) + args.sharing * producer, lane);
  }
  if (sharing) {
    sync_warp();
    sync_cluster(); // others may still send to this block's memory
  }
}

/// `consume_part`: as for gang_block.
template <int K, int pieces, bool half_precision, Sweep sweep, bool dealt, bool narrow = false, class Consume>
__device__ __forceinline__ void sweep_block(const ForwardArguments& args, Consume consume_part) {
  constexpr int stage_bytes = StageLayout<K, pieces, sweep>::bytes;
  gang_block<dealt, dealt && pieces == 1 && sweep == Sweep::forward>(
      args, stage_bytes, WorkbenchLayout<K, pieces>::bytes(args.gate_format == Stored::fp32 ? 4 : 2), args.staged ? stage_bytes : 0,
      [&](const Ring& ring, Address bench, Address staging, int gang, int first, unsigned lane) {
        produce_all<K, pieces, half_precision, sweep, dealt, narrow>(args, ring, bench, staging, gang, first,
                                                                     args.sharing * args.producer_warps, lane);
      },
      consume_part);
}

template <int K, int pieces, bool half_precision, bool dealt, bool narrow = false>
__device__ __forceinline__ void chunk_forward_block(const ForwardArguments& args) {
  sweep_block<K, pieces, half_precision, Sweep::forward, dealt, narrow>(
      args, [&](const Ring& ring, Address area, int gang, int column, unsigned lane) {
        const auto advance_chunk = [](float(&S)[K / 8][4], float(&O)[2][4], Address stage, Address values, unsigned own_lane) {
          if constexpr (pieces == mixed_terms)
            advance_mixed<K, half_precision>(S, O, stage, values, own_lane);
          else
            advance<K, pieces, half_precision>(S, O, stage, values, own_lane);
        };
        consume<K, StageLayout<K, pieces>::bytes, half_precision, dealt, narrow>(args, ring, area, gang, column, lane, advance_chunk);
      });
}

} // namespace kdacheck::cuda
