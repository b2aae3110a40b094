#pragma once
// What the token recurrences share: a token's rows, and one step of the state.
//
// A warp carries 4 value columns of the state; its lanes share the channels (c = lane + 32 m), so that reading a row is
// coalesced and the inner products are 5 shuffles. The decay is exponential.cuh's; log1p, sqrt and division are the library's
// (at most 2 ulp), never the approximations.

#include "../device/exponential.cuh"
#include "../device/gate.cuh"
#include "../device/rows.cuh"

namespace kdacheck::cuda {

inline constexpr int recurrence_columns = 4; ///< value columns of a warp

__device__ __forceinline__ float sum_warp(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

/// A token's rows as stored; after `prepare`, x is the decay, and q, k, beta are what the step takes.
template <int parts> struct TokenRow {
  float q[parts], k[parts], x[parts], a[parts], b[parts], v[recurrence_columns], beta;
};

template <int parts>
__device__ __forceinline__ void read_token(TokenRow<parts>& row, const ForwardArguments& args, Span span, std::int64_t t, int head,
                                           int column, int lane) {
  const int head_q = head / (args.HV / args.H);
  const std::int64_t token = span.first + t;
#pragma unroll
  for (int m = 0; m < parts; ++m) {
    const int c = lane + 32 * m;
    const bool inside = c < args.K;
    row.q[m] = inside ? load_number(args.q.data, row_of(args.q, span.batch, token, head_q) + c, args.qkv_format) : 0;
    row.k[m] = inside ? load_number(args.k.data, row_of(args.k, span.batch, token, head_q) + c, args.qkv_format) : 0;
    row.x[m] =
        inside && args.gate != Gate::absent ? load_number(args.g.data, row_of(args.g, span.batch, token, head) + c, args.gate_format) : 0;
    if (args.dplr) {
      row.a[m] = inside ? load_number(args.a.data, row_of(args.a, span.batch, token, head) + c, args.qkv_format) : 0;
      row.b[m] = inside ? load_number(args.b.data, row_of(args.b, span.batch, token, head) + c, args.qkv_format) : 0;
    }
  }
#pragma unroll
  for (int j = 0; j < recurrence_columns; ++j)
    row.v[j] = column + j < args.V ? load_number(args.v.data, row_of(args.v, span.batch, token, head) + column + j, args.qkv_format) : 0;
  row.beta = args.dplr ? 1 : load_number(args.beta.data, row_of(args.beta, span.batch, token, head), args.beta_format);
}

/// x / sqrt(sum x^2 + 1e-6); returns the root.
template <int parts> __device__ __forceinline__ float normalise(float (&x)[parts]) {
  float square = 0;
#pragma unroll
  for (int m = 0; m < parts; ++m) square += x[m] * x[m];
  const float norm = sqrtf(sum_warp(square) + 1e-6f);
#pragma unroll
  for (int m = 0; m < parts; ++m) x[m] /= norm;
  return norm;
}

template <int parts>
__device__ __forceinline__ void prepare_token(TokenRow<parts>& row, const ForwardArguments& args, const float (&bias)[parts],
                                              float growth) {
  if (args.l2norm) {
    normalise(row.q);
    normalise(row.k);
  }
  row.beta = args.dplr ? 1.0f : step_size(args.beta_form, row.beta);
#pragma unroll
  for (int m = 0; m < parts; ++m) row.x[m] = decay_exponential(log_decay(args.gate, row.x[m], bias[m], growth, args.lower_bound));
}

/// One step. `seen`: what the decayed state holds under k, or the state under b; `out`: what the query reads, not yet scaled.
template <int parts>
__device__ __forceinline__ void advance_token(float (&S)[parts][recurrence_columns], const TokenRow<parts>& row, bool dplr,
                                              float (&seen)[recurrence_columns], float (&out)[recurrence_columns]) {
#pragma unroll
  for (int j = 0; j < recurrence_columns; ++j) seen[j] = out[j] = 0;
#pragma unroll
  for (int m = 0; m < parts; ++m)
#pragma unroll
    for (int j = 0; j < recurrence_columns; ++j) {
      const float before = S[m][j];
      S[m][j] = row.x[m] * before;
      seen[j] += dplr ? row.b[m] * before : row.k[m] * S[m][j];
    }
#pragma unroll
  for (int j = 0; j < recurrence_columns; ++j) seen[j] = sum_warp(seen[j]);
#pragma unroll
  for (int m = 0; m < parts; ++m)
#pragma unroll
    for (int j = 0; j < recurrence_columns; ++j) {
      if (dplr)
        S[m][j] += row.k[m] * row.v[j] - row.a[m] * seen[j];
      else
        S[m][j] += row.k[m] * (row.beta * (row.v[j] - seen[j]));
      out[j] += row.q[m] * S[m][j];
    }
}

/// Element of a state [N,HV,K,V], or V-first.
__device__ __forceinline__ std::int64_t state_place(const ForwardArguments& args, std::int64_t unit, int c, int v) {
  return unit * args.K * args.V + (args.v_first ? static_cast<std::int64_t>(v) * args.K + c : static_cast<std::int64_t>(c) * args.V + v);
}

/// A warp's columns of a state; zeros where `from` is absent or nothing lies.
template <int parts>
__device__ __forceinline__ void read_columns(float (&S)[parts][recurrence_columns], const ForwardArguments& args, const float* from,
                                             std::int64_t unit, int column, int lane) {
#pragma unroll
  for (int m = 0; m < parts; ++m)
#pragma unroll
    for (int j = 0; j < recurrence_columns; ++j)
      S[m][j] =
          from != nullptr && lane + 32 * m < args.K && column + j < args.V ? from[state_place(args, unit, lane + 32 * m, column + j)] : 0;
}
template <int parts>
__device__ __forceinline__ void write_columns(const float (&S)[parts][recurrence_columns], const ForwardArguments& args, float* to,
                                              std::int64_t unit, int column, int lane) {
#pragma unroll
  for (int m = 0; m < parts; ++m)
#pragma unroll
    for (int j = 0; j < recurrence_columns; ++j)
      if (const int c = lane + 32 * m; c < args.K && column + j < args.V) to[state_place(args, unit, c, column + j)] = S[m][j];
}

/// dt_bias of a lane's channels.
template <int parts> __device__ __forceinline__ void read_bias(float (&bias)[parts], const ForwardArguments& args, int head, int lane) {
#pragma unroll
  for (int m = 0; m < parts; ++m) {
    const int c = lane + 32 * m;
    bias[m] = args.dt_bias != nullptr && c < args.K ? args.dt_bias[static_cast<std::int64_t>(head) * args.K + c] : 0;
  }
}

} // namespace kdacheck::cuda
