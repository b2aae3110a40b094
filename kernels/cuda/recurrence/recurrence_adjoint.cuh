#pragma once
// Reverse mode of the token recurrence in fp32.
//
// KDA, with X = Diag(alpha) S_{t-1}, w = v - X^T k, Lambda the cotangent of S_t (its own output's part included), m = Lambda^T k:
//   dq = scale S_t do    dv = beta m    dbeta = m . w    dk = beta (Lambda w - X m)    Y = Lambda - beta k m^T
//   dg = rows of X . Y                  cotangent of S_{t-1}: Diag(alpha) Y
// DPLR, with w = -S_{t-1}^T b and u = Lambda^T a:
//   dq = scale S_t do    da = Lambda w    dk = Lambda v    dv = Lambda^T k    db = -S_{t-1} u
//   dg = alpha rows of S_{t-1} . Lambda    cotangent of S_{t-1}: Diag(alpha) Lambda - b u^T
//
// A block takes 64 value columns of one state, 4 a warp, for the whole sequence; what columns of several warps give is added up in
// shared memory in their order, what several blocks give by the last pass. The states before each token are worked out again, as the
// forward pass did, from those kept in memory: every 64 tokens by the first pass, every 8 of these by the block that needs them,
// and up to 8 (16 / parts) in a row in shared memory.

#include "../host/recurrence_workspace.hpp"
#include "recurrence_rows.cuh"

namespace kdacheck::cuda {

struct RecurrenceAdjoint {
  BackwardArguments back;
  RecurrenceWorkspace where;
  __device__ __forceinline__ float* at(std::size_t offset) const { return reinterpret_cast<float*>(back.workspace + offset); }
};

/// Tokens whose states a block holds at once.
template <int parts> inline constexpr int tokens_held = 16 / parts;

/// Bytes of shared memory: states, seen columns, rows to be added up.
template <int parts> constexpr int recurrence_shared_bytes(int warps, bool dplr, int K) {
  return 4 * (tokens_held<parts> * 4 * warps * (32 * parts + 1) + warps * partial_width(dplr, K));
}

/// Which columns of which state a thread works on.
struct Share {
  int lane, warp, group, head, column;
  std::int64_t n, unit;
};
__device__ __forceinline__ Share share_of(const RecurrenceAdjoint& args) {
  Share share;
  share.lane = static_cast<int>(thread_index() % 32), share.warp = static_cast<int>(thread_index() / 32);
  const std::int64_t block = block_index();
  share.group = static_cast<int>(block % args.where.groups);
  share.unit = block / args.where.groups;
  share.head = static_cast<int>(share.unit % args.back.call.HV), share.n = share.unit / args.back.call.HV;
  share.column = recurrence_block_columns * share.group + recurrence_columns * share.warp;
  return share;
}

/// A block's state in memory, in the order of its threads.
template <int parts> __device__ __forceinline__ float* kept_state(const RecurrenceAdjoint& args, std::size_t offset, std::int64_t place) {
  return args.at(offset) + place * (parts * recurrence_columns * 32 * args.where.warps) + thread_index();
}
template <int parts> __device__ __forceinline__ void keep(const float (&S)[parts][recurrence_columns], float* to, int threads) {
#pragma unroll
  for (int m = 0; m < parts; ++m)
#pragma unroll
    for (int j = 0; j < recurrence_columns; ++j) to[(m * recurrence_columns + j) * threads] = S[m][j];
}
template <int parts> __device__ __forceinline__ void take(float (&S)[parts][recurrence_columns], const float* from, int threads) {
#pragma unroll
  for (int m = 0; m < parts; ++m)
#pragma unroll
    for (int j = 0; j < recurrence_columns; ++j) S[m][j] = from[(m * recurrence_columns + j) * threads];
}

template <int parts>
__device__ __forceinline__ float* segment_state(const RecurrenceAdjoint& args, const Share& share, Span span, std::int64_t segment) {
  const ForwardArguments& call = args.back.call;
  const std::int64_t slot = (span.batch * call.T + span.first) / recurrence_segment + segment - 1;
  return kept_state<parts>(args, args.where.states, (slot * call.HV + share.head) * args.where.groups + share.group);
}

/// First pass: states after every 64 tokens that others follow.
template <int parts> __device__ __forceinline__ void recurrence_states_block(const RecurrenceAdjoint& args) {
  const ForwardArguments& call = args.back.call;
  const Share share = share_of(args);
  const Span span = span_of(call, share.n);
  const std::int64_t boundaries = (span.length - 1) / recurrence_segment;
  float S[parts][recurrence_columns], bias[parts], seen[recurrence_columns], out[recurrence_columns];
  const float growth = call.A_log != nullptr ? expf(call.A_log[share.head]) : 1.0f;
  read_bias(bias, call, share.head, share.lane);
  read_columns(S, call, call.initial_state, share.unit, share.column, share.lane);
  TokenRow<parts> next;
  if (boundaries > 0) read_token(next, call, span, 0, share.head, share.column, share.lane);
  for (std::int64_t t = 0; t < boundaries * recurrence_segment; ++t) {
    TokenRow<parts> row = next;
    read_token(next, call, span, t + 1, share.head, share.column, share.lane);
    prepare_token(row, call, bias, growth);
    advance_token(S, row, call.dplr, seen, out);
    if ((t + 1) % recurrence_segment == 0)
      keep(S, segment_state<parts>(args, share, span, (t + 1) / recurrence_segment), 32 * args.where.warps);
  }
}

/// One token back: dS becomes the cotangent of the state before it. Writes dv, and this warp's part of the rest to `sums` in shared
/// memory, [3 K + 1] or [5 K] numbers.
template <int parts>
__device__ __forceinline__ void retreat_token(float (&dS)[parts][recurrence_columns], const float (&S)[parts][recurrence_columns],
                                              const float (&seen)[recurrence_columns], const TokenRow<parts>& row,
                                              const RecurrenceAdjoint& args, const Share& share, Span span, std::int64_t t, Address sums) {
  const BackwardArguments& back = args.back;
  const ForwardArguments& call = back.call;
  const bool dplr = call.dplr;
  const int K = call.K, lane = share.lane, column = share.column;
  float d_o[recurrence_columns], w[recurrence_columns], m[recurrence_columns], from_k[recurrence_columns];
#pragma unroll
  for (int j = 0; j < recurrence_columns; ++j) {
    d_o[j] = back.d_o.data != nullptr && column + j < call.V
                 ? load_number(back.d_o.data, row_of(back.d_o, span.batch, span.first + t, share.head) + column + j, call.output_format)
                 : 0;
    w[j] = dplr ? -seen[j] : row.v[j] - seen[j];
    m[j] = from_k[j] = 0;
  }
#pragma unroll
  for (int c = 0; c < parts; ++c)
#pragma unroll
    for (int j = 0; j < recurrence_columns; ++j) {
      dS[c][j] += (call.scale * row.q[c]) * d_o[j];
      from_k[j] += row.k[c] * dS[c][j];
      if (dplr) m[j] += row.a[c] * dS[c][j];
    }
  float beta_sum = 0;
#pragma unroll
  for (int j = 0; j < recurrence_columns; ++j) {
    from_k[j] = sum_warp(from_k[j]);
    m[j] = dplr ? sum_warp(m[j]) : from_k[j];
    beta_sum += m[j] * w[j];
    if (lane == j && column + j < call.V && back.dv.data != nullptr)
      store_number(back.dv.data, row_of(back.dv, span.batch, span.first + t, share.head) + column + j, row.beta * from_k[j],
                   back.dv_format);
  }
#pragma unroll
  for (int c = 0; c < parts; ++c) {
    float q = 0, k = 0, g = 0, a = 0, b = 0;
#pragma unroll
    for (int j = 0; j < recurrence_columns; ++j) {
      const float lambda = dS[c][j], before = S[c][j], decayed = row.x[c] * before;
      if (dplr) {
        q += (decayed + (row.k[c] * row.v[j] + row.a[c] * w[j])) * d_o[j];
        a += lambda * w[j];
        k += lambda * row.v[j];
        b -= before * m[j];
        g += decayed * lambda;
        dS[c][j] = row.x[c] * lambda - row.b[c] * m[j];
      } else {
        const float kept = lambda - row.k[c] * (row.beta * m[j]);
        q += (decayed + row.k[c] * (row.beta * w[j])) * d_o[j];
        k += lambda * w[j] - decayed * m[j];
        g += decayed * kept;
        dS[c][j] = row.x[c] * kept;
      }
    }
    if (const int channel = lane + 32 * c; channel < K) {
      store_shared(sums + 4 * channel, q);
      store_shared(sums + 4 * (K + channel), row.beta * k);
      store_shared(sums + 4 * (2 * K + channel), g);
      if (dplr) {
        store_shared(sums + 4 * (3 * K + channel), a);
        store_shared(sums + 4 * (4 * K + channel), b);
      }
    }
  }
  if (!dplr && lane == 0) store_shared(sums + 4 * (3 * K), beta_sum);
}

/// Second pass: from the last token to the first.
template <int parts> __device__ __forceinline__ void recurrence_adjoint_block(const RecurrenceAdjoint& args) {
  constexpr int columns = recurrence_columns, held = tokens_held<parts>;
  const BackwardArguments& back = args.back;
  const ForwardArguments& call = back.call;
  const Share share = share_of(args);
  const Span span = span_of(call, share.n);
  const int warps = args.where.warps, threads = 32 * warps, lane = share.lane, width = args.where.width;
  const Address states = shared_base(), seen_at = states + 4 * (held * parts * columns * threads),
                sums = seen_at + 4 * (held * columns * warps);
  float bias[parts], S[parts][columns], dS[parts][columns], seen[columns], out[columns];
  const float growth = call.A_log != nullptr ? expf(call.A_log[share.head]) : 1.0f;
  read_bias(bias, call, share.head, lane);
  read_columns(dS, call, back.d_final_state, share.unit, share.column, lane);
  TokenRow<parts> row;
  const auto read = [&](std::int64_t t) {
    read_token(row, call, span, t, share.head, share.column, lane);
    prepare_token(row, call, bias, growth);
  };
  const std::int64_t block = share.unit * args.where.groups + share.group;
  const auto inner = [&](int step) { return kept_state<parts>(args, args.where.inner, block * args.where.inner_slots + step); };
  const std::int64_t segments = (span.length + recurrence_segment - 1) / recurrence_segment;
  for (std::int64_t segment = segments - 1; segment >= 0; --segment) {
    const std::int64_t first = segment * recurrence_segment, left = span.length - first;
    const int tokens = left < recurrence_segment ? static_cast<int>(left) : recurrence_segment;
    const int steps = (tokens + recurrence_step - 1) / recurrence_step;
    if (segment == 0)
      read_columns(S, call, call.initial_state, share.unit, share.column, lane);
    else
      take(S, segment_state<parts>(args, share, span, segment), threads);
    for (int step = 0; step < steps; ++step) {
      keep(S, inner(step), threads);
      for (int t = step * recurrence_step; step + 1 < steps && t < (step + 1) * recurrence_step; ++t) {
        read(first + t);
        advance_token(S, row, call.dplr, seen, out);
      }
    }
    for (int step = steps - 1; step >= 0; --step) {
      const int begin = step * recurrence_step, end = begin + recurrence_step < tokens ? begin + recurrence_step : tokens;
      for (int from = begin + (end - begin - 1) / held * held; from >= begin; from -= held) {
        const int until = from + held < end ? from + held : end;
        take(S, inner(step), threads);
        for (int t = begin; t < until; ++t) {
          read(first + t);
          if (t >= from) {
#pragma unroll
            for (int e = 0; e < parts * columns; ++e)
              store_shared(states + 4 * (((t - from) * parts * columns + e) * threads + static_cast<int>(thread_index())),
                           S[e / columns][e % columns]);
          }
          advance_token(S, row, call.dplr, seen, out);
          if (t >= from)
#pragma unroll
            for (int j = 0; j < columns; ++j)
              if (lane == j) store_shared(seen_at + 4 * (((t - from) * warps + share.warp) * columns + j), seen[j]);
        }
        sync_warp();
        for (int t = until - 1; t >= from; --t) {
          read(first + t);
#pragma unroll
          for (int e = 0; e < parts * columns; ++e)
            S[e / columns][e % columns] =
                load_shared_float(states + 4 * (((t - from) * parts * columns + e) * threads + static_cast<int>(thread_index())));
#pragma unroll
          for (int j = 0; j < columns; ++j) seen[j] = load_shared_float(seen_at + 4 * (((t - from) * warps + share.warp) * columns + j));
          retreat_token(dS, S, seen, row, args, share, span, first + t, sums + 4 * (share.warp * width));
          sync_block();
          const std::int64_t token = span.batch * call.T + span.first + first + t;
          float* to = args.at(args.where.partials) + ((token * call.HV + share.head) * args.where.groups + share.group) * width;
          for (int e = static_cast<int>(thread_index()); e < width; e += threads) {
            float sum = load_shared_float(sums + 4 * e);
            for (int warp = 1; warp < warps; ++warp) sum += load_shared_float(sums + 4 * (warp * width + e));
            to[e] = sum;
          }
          sync_block();
        }
        sync_warp();
      }
    }
  }
  if (back.d_initial_state != nullptr) write_columns(dS, call, back.d_initial_state, share.unit, share.column, lane);
}

inline constexpr int slab_warps = 8, slab_parts = 8;

/// Last pass: 64 rows of one value head, through gate and sigmoid, and, if it is the first of its group, of their q and k through
/// l2norm. Sums of d dt_bias and d A_log over the rows. Shared memory: [warps][K + 1] numbers.
__device__ __forceinline__ void recurrence_rows_block(const RecurrenceAdjoint& args, float* partial_bias, float* partial_A) {
  const BackwardArguments& back = args.back;
  const ForwardArguments& call = back.call;
  const int lane = static_cast<int>(thread_index() % 32), warp = static_cast<int>(thread_index() / 32), K = call.K;
  const auto all = static_cast<unsigned>(call.HV);
  const std::int64_t slab = block_index() / all, rows = back.B * call.T;
  const int head = static_cast<int>(block_index() % all), heads = call.HV / call.H, groups = args.where.groups;
  const int width = args.where.width;
  const float* partials = args.at(args.where.partials);
  /// A number of one head's row, added up over its blocks.
  const auto total = [&](std::int64_t token, int of, int place) {
    const float* from = partials + (token * call.HV + of) * groups * width + place;
    float sum = from[0];
    for (int group = 1; group < groups; ++group) sum += from[group * width];
    return sum;
  };
  float bias[slab_parts], bias_sum[slab_parts] = {}, A_sum = 0;
  read_bias(bias, call, head, lane);
  const float rate = call.A_log != nullptr ? expf(call.A_log[head]) : 1.0f, growth = rate > 3.38e38f ? 3.38e38f : rate; // 0 times it is 0
  for (int i = warp; i < recurrence_slab && slab * recurrence_slab + i < rows; i += slab_warps) {
    const std::int64_t token = slab * recurrence_slab + i, batch = token / call.T, t = token % call.T;
    if (call.gate != Gate::absent)
#pragma unroll
      for (int m = 0; m < slab_parts; ++m) {
        const int c = lane + 32 * m;
        if (c >= K) continue;
        const float x = load_number(call.g.data, row_of(call.g, batch, t, head) + c, call.gate_format);
        const DecaySlope slope = decay_slope(call.gate, x, bias[m], growth, call.lower_bound);
        const float arriving = total(token, head, 2 * K + c), leaving = arriving * slope.along_x;
        bias_sum[m] += within(Stored::fp32, leaving);
        A_sum += arriving * slope.along_A_log;
        if (back.dg.data != nullptr)
          store_number(back.dg.data, row_of(back.dg, batch, t, head) + c, within(back.dg_format, leaving), back.dg_format);
      }
    if (call.dplr) {
      for (int c = lane; c < K; c += 32) {
        if (back.da.data != nullptr)
          store_number(back.da.data, row_of(back.da, batch, t, head) + c, total(token, head, 3 * K + c), back.da_format);
        if (back.db.data != nullptr)
          store_number(back.db.data, row_of(back.db, batch, t, head) + c, total(token, head, 4 * K + c), back.db_format);
      }
    } else if (lane == 0 && back.dbeta.data != nullptr) {
      const float x = load_number(call.beta.data, row_of(call.beta, batch, t, head), call.beta_format);
      store_number(back.dbeta.data, row_of(back.dbeta, batch, t, head), total(token, head, 3 * K) * step_slope(call.beta_form, x),
                   back.dbeta_format);
    }
    if (head % heads != 0) continue;
    const int head_q = head / heads;
    for (int which = 0; which < 2; ++which) {
      const View &to = which == 0 ? back.dq : back.dk, &from = which == 0 ? call.q : call.k;
      const Stored format = which == 0 ? back.dq_format : back.dk_format;
      if (to.data == nullptr) continue;
      float d[slab_parts] = {}, x[slab_parts] = {}, product = 0, norm = 1;
#pragma unroll
      for (int m = 0; m < slab_parts; ++m) {
        const int c = lane + 32 * m;
        if (c >= K) continue;
        for (int of = head; of < head + heads; ++of) d[m] += total(token, of, which * K + c);
        if (which == 0) d[m] *= call.scale;
        if (call.l2norm) x[m] = load_number(from.data, row_of(from, batch, t, head_q) + c, call.qkv_format);
      }
      if (call.l2norm) {
        norm = normalise(x);
#pragma unroll
        for (int m = 0; m < slab_parts; ++m) product += x[m] * d[m];
        product = sum_warp(product);
      }
#pragma unroll
      for (int m = 0; m < slab_parts; ++m)
        if (const int c = lane + 32 * m; c < K)
          store_number(to.data, row_of(to, batch, t, head_q) + c, call.l2norm ? (d[m] - x[m] * product) / norm : d[m], format);
    }
  }
  if (partial_bias == nullptr) return;
  const Address sums = shared_base();
#pragma unroll
  for (int m = 0; m < slab_parts; ++m)
    if (const int c = lane + 32 * m; c < K) store_shared(sums + 4 * (warp * (K + 1) + c), bias_sum[m]);
  A_sum = sum_warp(A_sum);
  if (lane == 0) store_shared(sums + 4 * (warp * (K + 1) + K), A_sum);
  sync_block();
  const std::int64_t place = slab * call.HV + head;
  for (int c = static_cast<int>(thread_index()); c <= K; c += 32 * slab_warps) {
    float sum = 0;
    for (int of = 0; of < slab_warps; ++of) sum += load_shared_float(sums + 4 * (of * (K + 1) + c));
    if (c < K)
      partial_bias[place * K + c] = within(Stored::fp32, sum);
    else
      partial_A[place] = sum;
  }
}

/// d dt_bias and d A_log of one value head: sums over slabs in order. At least K + 1 threads.
__device__ __forceinline__ void recurrence_parameters_block(const RecurrenceAdjoint& args, const float* partial_bias,
                                                            const float* partial_A) {
  const BackwardArguments& back = args.back;
  const int channel = static_cast<int>(thread_index()), K = back.call.K, HV = back.call.HV, head = static_cast<int>(block_index());
  if (channel > K) return;
  const float* from = channel < K ? partial_bias + head * K + channel : partial_A + head;
  const std::int64_t stride = channel < K ? static_cast<std::int64_t>(HV) * K : HV;
  double sum = 0;
  for (std::int64_t slab = 0; slab < args.where.slabs; ++slab) sum += static_cast<double>(from[slab * stride]);
  constexpr double most = 3.38e38;
  const auto total = static_cast<float>(sum > most ? most : sum < -most ? -most : sum);
  if (channel == K) {
    if (back.d_A_log != nullptr) back.d_A_log[head] = total;
  } else if (back.d_dt_bias != nullptr) {
    back.d_dt_bias[static_cast<std::int64_t>(head) * K + channel] = total;
  }
}

} // namespace kdacheck::cuda
