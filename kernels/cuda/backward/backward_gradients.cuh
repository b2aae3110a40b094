#pragma once
// Third pass of the backward pass: everything but dv and dh0, parallel over segments of 64 tokens and q/k heads. The value
// heads of a group are taken in order by one block, so that their sums need no atomics.

#include "backward_products.cuh"
#include "backward_rows.cuh"

namespace kdacheck::cuda {

/// The states at a segment's two ends.
__device__ __forceinline__ BoundaryState state_before(const GradientArguments& gradient, const Segment& segment, int head) {
  const ForwardArguments& args = gradient.call;
  if (segment.number == 0) return {nullptr, args.initial_state, segment.n * args.state_heads + head};
  const std::int64_t slot = boundary_slot(args, segment.span, segment.number);
  return {gradient.S + (slot * args.HV + head) * state_words(args.K, args.V), nullptr, 0};
}
__device__ __forceinline__ BoundaryState cotangent_after(const GradientArguments& gradient, const Segment& segment, int head) {
  const ForwardArguments& args = gradient.call;
  if (segment.last()) return {nullptr, gradient.d_final_state, segment.n * args.state_heads + head};
  const std::int64_t slot = boundary_slot(args, segment.span, segment.number + 1);
  return {gradient.dS + (slot * args.HV + head) * state_words(args.K, args.V), nullptr, 0};
}

template <GateCode code, int K, int pieces, bool half_precision, bool narrow = false>
__device__ __forceinline__ void segment_gradients(const GradientArguments& gradient, const Segment& segment, std::int64_t slot, int head,
                                                  int head_q) {
  using Layout = GradientLayout<K, pieces, half_precision>;
  constexpr int threads = 2 * K;
  const ForwardArguments& args = gradient.call;
  const Layout at(args.V);
  const Address base = shared_base();
  const std::int64_t row = static_cast<std::int64_t>(args.HV) * args.V, plane = row * gradient.rows_total;
  const std::int64_t offset = (segment.span.batch * args.T + segment.first()) * row + static_cast<std::int64_t>(head) * args.V;
  copy_segment_keys<K, pieces, half_precision, narrow>(args, base, segment, head, head_q);
  copy_async_commit();
  copy_values<pieces, threads>(base + Layout::R, at.value_row, at.value_piece, gradient.R + offset, row, plane, segment.tokens, args.V);
  copy_values<pieces, threads>(base + at.M, at.value_row, at.value_piece, gradient.M + offset, row, plane, segment.tokens, args.V);
  copy_cotangent<pieces, half_precision, threads>(base + at.d_o, at.value_row, at.value_piece, gradient.d_o,
                                                  row_of(gradient.d_o, segment.span.batch, segment.first(), head), segment.tokens, args.V);
  copy_async_commit();
  copy_async_wait<1>();
  sync_block();
  prepare_keys<code, narrow>(args, base, at, segment, head);
  copy_async_wait<0>();
  sync_block();
  float diagonal[Layout::diagonal_turns][2][4];
  multiply_scores<K, pieces, half_precision>(diagonal, base, at, args.V, [&](int token, float product) {
    if (gradient.dbeta.data == nullptr || token >= segment.tokens) return;
    const float x = load_number(args.beta.data, row_of(args.beta, segment.span.batch, segment.first() + token, head), args.beta_format);
    store_number(gradient.dbeta.data, row_of(gradient.dbeta, segment.span.batch, segment.first() + token, head),
                 product * step_slope(args.beta_form, x), gradient.dbeta_format);
  });
  sync_block();
  const BoundaryState S = state_before(gradient, segment, head), dS = cotangent_after(gradient, segment, head);
  {
    float C[sub_blocks][2][4];
    multiply_columns<K, pieces, half_precision, narrow>(C, args, base, at, S, dS, segment.tokens - 1);
    sync_block(); // kd and qd are no longer needed
    store_result<K>(C, base + Layout::columns);
  }
  {
    float Q[sub_blocks][2][4], N[sub_blocks][2][4];
    multiply_rows<K, pieces, half_precision, narrow>(Q, N, args, base, at, S);
    sync_block(); // nor are kr, R, M, dO and the scores
    store_result<K>(Q, base + Layout::row_q);
    store_result<K>(N, base + Layout::row_k);
  }
  store_diagonal<K>(diagonal, base + at.scores);
  sync_block();
  finish_sub_block<code, narrow>(args, base, at, segment, head, head_q);
  sync_block();
#pragma unroll 1
  for (int which = 0; which < 2; ++which) { // one body for both: the code must fit the instruction cache
    const bool of_q = which == 0;
    write_keys<K, half_precision, narrow>(
        args, base + (of_q ? Layout::row_q : Layout::row_k), base + at.norms + which * (4 * segment_tokens), of_q ? args.q : args.k,
        of_q ? gradient.dq : gradient.dk, of_q ? gradient.dq_format : gradient.dk_format, of_q ? gradient.group_q : gradient.group_k,
        gradient.group_heads, gradient.group_first, segment, head, head_q);
  }
  if (args.gate == Gate::absent) return;
  const Address sums = base + at.scores;
  write_gate<code, narrow>(gradient, base, at, segment, head, sums);
  if (gradient.partial_bias == nullptr) return;
  sync_block();
  const std::int64_t place = slot * args.HV + head;
  const int channels = channels_of<K, narrow>(args);
  for (int channel = static_cast<int>(thread_index()); channel < channels; channel += threads) {
    float sum = 0;
#pragma unroll
    for (int block = 0; block < sub_blocks; ++block) sum += load_shared_float(sums + 4 * (block * K + channel));
    gradient.partial_bias[place * channels + channel] = sum;
  }
  if (thread_index() == 0) {
    float sum = 0;
    for (int warp = 0; warp < K / 16; ++warp) sum += load_shared_float(sums + 4 * (sub_blocks * K + warp));
    gradient.partial_A[place] = sum;
  }
}

/// A block: one slot of the grid and one q/k head. `code`: the gates that it has code for.
template <GateCode code, int K, int pieces, bool half_precision, bool narrow = false>
__device__ __forceinline__ void gradients_block(const GradientArguments& gradient) {
  const ForwardArguments& args = gradient.call;
  const auto all = static_cast<unsigned>(args.H);
  const std::int64_t slot = block_index() / all;
  const int head_q = static_cast<int>(block_index() % all), heads = args.HV / args.H;
  const Segment segment = piece_of<segment_tokens>(args, slot);
  for (int head = head_q * heads; head < (head_q + 1) * heads; ++head) {
    if (segment.tokens > 0) {
      segment_gradients<code, K, pieces, half_precision, narrow>(gradient, segment, slot, head, head_q);
      sync_block();
    } else if (gradient.partial_bias != nullptr) {
      const std::int64_t place = slot * args.HV + head;
      const int channels = channels_of<K, narrow>(args);
      for (int channel = static_cast<int>(thread_index()); channel < channels; channel += 2 * K)
        gradient.partial_bias[place * channels + channel] = 0;
      if (thread_index() == 0) gradient.partial_A[place] = 0;
    }
  }
}

} // namespace kdacheck::cuda
