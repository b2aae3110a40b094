#pragma once
// What MLA computes on its way, shared by mla.cpp and its backward pass.

#include "linear.hpp"
#include "mla_stages.hpp"
#include "packed_rows.hpp"

namespace kdacheck::modules {

/// Of R packed tokens.
struct MlaTokens {
  std::vector<float> q;            ///< [R,H (K + K_shared)]
  std::vector<float> down, latent; ///< [R,rank] before and after the norm
  std::vector<float> shared;       ///< [R,K_shared]
};
MlaTokens trace_tokens(const MlaStages&, const Mla&, const MlaParameters&, std::int64_t R, std::span<const float> x);

/// Tokens [first,last) to the end of a sequence's cache.
void append_tokens(const Mla&, const MlaTokens&, std::int64_t first, std::int64_t last, std::vector<float>& rows);

/// One sequence with its cache, the call's own tokens at the end; M = past + rows.
struct MlaSequence {
  std::int64_t past = 0, rows = 0;
  std::span<const float> q;      ///< [rows,H (K + K_shared)]
  std::span<const float> cache;  ///< [M,rank + K_shared]
  std::vector<float> latent, kv; ///< [M,rank]; [M,H (K + V)], empty until it is needed
};
MlaSequence sequence_of(const Mla&, const MlaTokens&, std::int64_t first, std::int64_t last, std::span<const float> cache);

/// Fills kv.
void make_keys_and_values(const Mla&, const MlaParameters&, MlaSequence&);

struct HeadTensors {
  std::vector<float> q, k, v; ///< [rows,K + K_shared], [M,K + K_shared], [M,V]
};
HeadTensors tensors_of_head(const Mla&, const MlaSequence&, std::int64_t head);
HeadAttention attention_of(const Mla&, const MlaSequence&, const HeadTensors&);

/// o [rows,H V]
std::vector<float> attend_all(const MlaStages&, const Mla&, const MlaSequence&);

/// Columns [first, first + width) of `count` rows of `stride` numbers, and back into them.
std::vector<float> columns_of(std::span<const float> rows, std::int64_t count, std::int64_t stride, std::int64_t first, std::int64_t width);
void put_columns(std::span<const float> part, std::int64_t count, std::int64_t width, std::span<float> rows, std::int64_t stride,
                 std::int64_t first);

} // namespace kdacheck::modules
