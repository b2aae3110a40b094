// Many tokens of a sequence make keys and values of all cached tokens from the latent; few work in the latent space, where a
// row of the cache is the key of every head. Heads are independent tasks, tokens of a head go band by band.

#include "mla.hpp"

#include "mla_trace.hpp"

#include <algorithm>

namespace kdacheck::modules {
namespace {

/// Room for `more` numbers at the end, growing by an eighth at least so that decoding copies each row a bounded number of times.
void make_room(std::vector<float>& rows, std::size_t more, std::int64_t width) {
  const std::size_t needed = rows.size() + more, page = 64 * static_cast<std::size_t>(width);
  if (needed > rows.capacity()) rows.reserve(rows.empty() ? needed : std::max(needed, rows.size() + rows.size() / 8 + page));
}

/// Multiply-adds per cached token and head: rows (2 rank + K_shared) in the latent space, more than rank (K + V) outside it.
bool absorbs(const Mla& mla, std::int64_t rows) { return mla.absorb && rows * (2 * mla.rank + mla.K_shared) <= mla.rank * (mla.K + mla.V); }

/// o [rows,V] of one head in the latent space.
std::vector<float> attend_in_latent_space(const MlaStages& stages, const Mla& mla, const MlaParameters& p, const MlaSequence& s,
                                          std::int64_t h) {
  const std::int64_t wide = mla.K + mla.K_shared, up = mla.H * (mla.K + mla.V), first = h * (mla.K + mla.V);
  const std::vector<float> key_up = columns_of(p.kv_up, mla.rank, up, first, mla.K);
  const std::vector<float> value_up = columns_of(p.kv_up, mla.rank, up, first + mla.K, mla.V);
  std::vector<float> projected(static_cast<std::size_t>(s.rows * mla.rank)), q(static_cast<std::size_t>(s.rows * mla.cached()));
  add_linear_input_gradient({mla.rank, mla.K, key_up}, s.rows, columns_of(s.q, s.rows, mla.H * wide, h * wide, mla.K), projected);
  put_columns(projected, s.rows, mla.rank, q, mla.cached(), 0);
  put_columns(columns_of(s.q, s.rows, mla.H * wide, h * wide + mla.K, mla.K_shared), s.rows, mla.K_shared, q, mla.cached(), mla.rank);
  return linear(
      {mla.rank, mla.V, value_up}, s.rows,
      stages.attend(
          {.past = s.past, .rows = s.rows, .K = mla.cached(), .V = mla.rank, .scale = mla.scale(), .q = q, .k = s.cache, .v = s.latent}));
}

} // namespace

std::int64_t MlaCache::tokens(const Mla& mla, std::int64_t n) const {
  return rows.empty() ? 0 : static_cast<std::int64_t>(rows[static_cast<std::size_t>(n)].size()) / mla.cached();
}

std::int64_t MlaCache::bytes() const {
  std::int64_t total = 0;
  for (const std::vector<float>& row : rows) total += static_cast<std::int64_t>(row.capacity() * sizeof(float));
  return total;
}

MlaTokens trace_tokens(const MlaStages& stages, const Mla& mla, const MlaParameters& p, std::int64_t R, std::span<const float> x) {
  MlaTokens tokens;
  tokens.q = linear({mla.D, mla.H * (mla.K + mla.K_shared), p.q_proj}, R, x);
  tokens.down = linear({mla.D, mla.rank, p.kv_down}, R, x);
  tokens.latent = stages.normalise({mla.rank, mla.norm_epsilon, p.kv_norm}, R, tokens.down);
  if (mla.K_shared > 0) tokens.shared = linear({mla.D, mla.K_shared, p.k_shared}, R, x);
  return tokens;
}

void append_tokens(const Mla& mla, const MlaTokens& tokens, std::int64_t first, std::int64_t last, std::vector<float>& rows) {
  make_room(rows, static_cast<std::size_t>((last - first) * mla.cached()), mla.cached());
  for (std::int64_t t = first; t < last; ++t) {
    rows.insert(rows.end(), tokens.latent.begin() + t * mla.rank, tokens.latent.begin() + (t + 1) * mla.rank);
    rows.insert(rows.end(), tokens.shared.begin() + t * mla.K_shared, tokens.shared.begin() + (t + 1) * mla.K_shared);
  }
}

std::vector<float> columns_of(std::span<const float> rows, std::int64_t count, std::int64_t stride, std::int64_t first,
                              std::int64_t width) {
  std::vector<float> part;
  part.reserve(static_cast<std::size_t>(count * width));
  for (std::int64_t i = 0; i < count; ++i)
    part.insert(part.end(), rows.begin() + i * stride + first, rows.begin() + i * stride + first + width);
  return part;
}

HeadTensors tensors_of_head(const Mla& mla, const MlaSequence& s, std::int64_t h) {
  const std::int64_t wide = mla.K + mla.K_shared, up = mla.H * (mla.K + mla.V), M = s.past + s.rows;
  HeadTensors head;
  head.q = columns_of(s.q, s.rows, mla.H * wide, h * wide, wide);
  head.v = columns_of(s.kv, M, up, h * (mla.K + mla.V) + mla.K, mla.V);
  head.k.reserve(static_cast<std::size_t>(M * wide));
  for (std::int64_t i = 0; i < M; ++i) {
    const auto own = s.kv.begin() + i * up + h * (mla.K + mla.V);
    const auto shared = s.cache.begin() + i * mla.cached() + mla.rank;
    head.k.insert(head.k.end(), own, own + mla.K), head.k.insert(head.k.end(), shared, shared + mla.K_shared);
  }
  return head;
}

HeadAttention attention_of(const Mla& mla, const MlaSequence& s, const HeadTensors& head) {
  return {
      .past = s.past, .rows = s.rows, .K = mla.K + mla.K_shared, .V = mla.V, .scale = mla.scale(), .q = head.q, .k = head.k, .v = head.v};
}

void put_columns(std::span<const float> part, std::int64_t count, std::int64_t width, std::span<float> rows, std::int64_t stride,
                 std::int64_t first) {
  for (std::int64_t i = 0; i < count; ++i) std::copy_n(part.begin() + i * width, width, rows.begin() + i * stride + first);
}

std::vector<float> attend_all(const MlaStages& stages, const Mla& mla, const MlaSequence& s) {
  std::vector<float> o(static_cast<std::size_t>(s.rows * mla.H * mla.V));
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t h = 0; h < mla.H; ++h) {
    const HeadTensors head = tensors_of_head(mla, s, h);
    put_columns(stages.attend(attention_of(mla, s, head)), s.rows, mla.V, o, mla.H * mla.V, h * mla.V);
  }
  return o;
}

MlaSequence sequence_of(const Mla& mla, const MlaTokens& tokens, std::int64_t first, std::int64_t last, std::span<const float> cache) {
  const std::int64_t wide = mla.H * (mla.K + mla.K_shared);
  MlaSequence s;
  s.rows = last - first, s.past = static_cast<std::int64_t>(cache.size()) / mla.cached() - s.rows;
  s.q = std::span(tokens.q).subspan(static_cast<std::size_t>(first * wide), static_cast<std::size_t>(s.rows * wide));
  s.cache = cache;
  s.latent = columns_of(cache, s.past + s.rows, mla.cached(), 0, mla.rank);
  return s;
}

void make_keys_and_values(const Mla& mla, const MlaParameters& p, MlaSequence& s) {
  s.kv = linear({mla.rank, mla.H * (mla.K + mla.V), p.kv_up}, s.past + s.rows, s.latent);
}

std::vector<float> run_mla(const MlaStages& stages, const Mla& mla, const MlaParameters& p, const MlaInput& input, MlaCache& cache) {
  check_mla_call(mla, p, input, cache);
  const PackedRows packed = packed_rows(input.B, input.T, input.cu_seqlens, input.mask);
  const std::vector<float> gathered = packed.gathered(input.x, mla.D);
  const std::int64_t R = packed.cu_seqlens.back();
  const MlaTokens tokens = trace_tokens(stages, mla, p, R, packed.all ? input.x : std::span<const float>(gathered));
  cache.rows.resize(packed.cu_seqlens.size() - 1);
  std::vector<float> o;
  o.reserve(static_cast<std::size_t>(R * mla.H * mla.V));
  for (std::size_t n = 0; n < cache.rows.size(); ++n) {
    const std::int64_t first = packed.cu_seqlens[n], last = packed.cu_seqlens[n + 1];
    if (first == last) continue;
    append_tokens(mla, tokens, first, last, cache.rows[n]);
    MlaSequence s = sequence_of(mla, tokens, first, last, cache.rows[n]);
    std::vector<float> here(static_cast<std::size_t>(s.rows * mla.H * mla.V));
    if (absorbs(mla, s.rows)) {
#pragma omp parallel for schedule(dynamic)
      for (std::int64_t h = 0; h < mla.H; ++h)
        put_columns(attend_in_latent_space(stages, mla, p, s, h), s.rows, mla.V, here, mla.H * mla.V, h * mla.V);
    } else {
      make_keys_and_values(mla, p, s);
      here = attend_all(stages, mla, s);
    }
    o.insert(o.end(), here.begin(), here.end());
  }
  std::vector<float> y = linear({mla.H * mla.V, mla.D, p.o_proj}, R, o);
  return packed.all ? y : packed.scattered(y, mla.D);
}

std::vector<float> mla(const Mla& layer, const MlaParameters& p, const MlaInput& input, MlaCache& cache) {
  return run_mla({}, layer, p, input, cache);
}

} // namespace kdacheck::modules
