#pragma once
// One step of one head's state [K,V] in place, in O(K V): up to 64 columns at a time keep their sums over the K rows in
// registers. Rows need no padding; the last columns are loaded and stored in part.
//
// An element's arithmetic is the same wherever its column stands: one chain of multiply-adds over the rows in rising order.

#include "../cpu/lanes.hpp"

#include <algorithm>
#include <cstring>

namespace kdacheck::modules {

/// S <- (I - beta k k^T) Diag(alpha) S + beta k v^T; v null: without the last term.
struct KdaHead {
  const float *alpha, *k;
  float beta;
  const float* v;
};

/// S <- (Diag(d) - a b^T) S + k v^T; k and v null: without the last term.
struct DplrHead {
  const float *d, *a, *b, *k, *v;
};

namespace head_step_detail {

using cpu::broadcast;
using cpu::lane_count;
using cpu::Lanes;
using cpu::multiply_add;

constexpr int most_wide = static_cast<int>(64 / lane_count); ///< vectors in 64 columns

/// `wide` vectors from a place; of the last one only `last` lanes exist unless it is whole.
template <int wide, bool whole> struct Columns {
  std::int64_t last;

  std::size_t bytes(int w) const { return (whole || w + 1 < wide ? sizeof(Lanes) : static_cast<std::size_t>(last) * sizeof(float)); }
  Lanes load(const float* from, int w) const {
    Lanes lanes{};
    std::memcpy(&lanes, from + w * lane_count, bytes(w));
    return lanes;
  }
  void store(float* to, int w, Lanes lanes) const { std::memcpy(to + w * lane_count, &lanes, bytes(w)); }
};

template <int wide, bool whole>
void step_columns(const KdaHead& head, std::int64_t K, std::int64_t V, float* S, const float* v, std::int64_t last) {
  const Columns<wide, whole> columns{last};
  const float *alpha = head.alpha, *keys = head.k;
  Lanes held[wide]{};
  // the first pass only reads: storing the decayed state here, to load it again below, made the step four times slower
  for (std::int64_t i = 0; i < K; ++i) {
    const Lanes read = broadcast(keys[i] * alpha[i]);
#pragma GCC unroll 8
    for (int w = 0; w < wide; ++w) held[w] = multiply_add(read, columns.load(S + i * V, w), held[w]);
  }
#pragma GCC unroll 8
  for (int w = 0; w < wide; ++w) held[w] = broadcast(head.beta) * ((v ? columns.load(v, w) : Lanes{}) - held[w]);
  for (std::int64_t i = 0; i < K; ++i) {
    const Lanes decay = broadcast(alpha[i]), k = broadcast(keys[i]);
#pragma GCC unroll 8
    for (int w = 0; w < wide; ++w) columns.store(S + i * V, w, multiply_add(k, held[w], decay * columns.load(S + i * V, w)));
  }
}

template <int wide, bool whole>
void step_columns(const DplrHead& head, std::int64_t K, std::int64_t V, float* S, const float* v, std::int64_t last) {
  const Columns<wide, whole> columns{last};
  Lanes read[wide]{}, values[wide]{};
#pragma GCC unroll 8
  for (int w = 0; w < wide && v; ++w) values[w] = columns.load(v, w);
  for (std::int64_t i = 0; i < K; ++i) {
    const Lanes b = broadcast(head.b[i]);
#pragma GCC unroll 8
    for (int w = 0; w < wide; ++w) read[w] = multiply_add(b, columns.load(S + i * V, w), read[w]);
  }
  for (std::int64_t i = 0; i < K; ++i) {
    const Lanes d = broadcast(head.d[i]), a = broadcast(-head.a[i]), k = broadcast(v ? head.k[i] : 0.0f);
#pragma GCC unroll 8
    for (int w = 0; w < wide; ++w) {
      Lanes next = multiply_add(a, read[w], d * columns.load(S + i * V, w));
      if (v) next = multiply_add(k, values[w], next);
      columns.store(S + i * V, w, next);
    }
  }
}

} // namespace head_step_detail

template <class Head> void step_head(const Head& head, std::int64_t K, std::int64_t V, float* S) {
  using namespace head_step_detail;
  const auto values = [&](std::int64_t at) { return head.v ? head.v + at : nullptr; };
  std::int64_t at = 0;
  for (; at + most_wide * lane_count <= V; at += most_wide * lane_count)
    step_columns<most_wide, true>(head, K, V, S + at, values(at), lane_count);
  for (; at + lane_count <= V; at += lane_count) step_columns<1, true>(head, K, V, S + at, values(at), lane_count);
  if (at < V) step_columns<1, false>(head, K, V, S + at, values(at), V - at);
}

} // namespace kdacheck::modules
