#include "mla_trace.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

void add(std::vector<float>& sum, std::span<const float> terms) {
  sum.resize(std::max(sum.size(), terms.size()), 0.0f);
  for (std::size_t i = 0; i < terms.size(); ++i) sum[i] += terms[i];
}

/// Gradients of one sequence's queries [rows,H (K + K_shared)], of keys and values [M,H (K + V)], of shared keys [M,K_shared].
struct SequenceGradients {
  std::vector<float> q, kv, shared;
};
SequenceGradients attend_all_backward(const MlaStages& stages, const Mla& mla, const MlaSequence& s, std::span<const float> d_o) {
  const std::int64_t wide = mla.K + mla.K_shared, M = s.past + s.rows, up = mla.H * (mla.K + mla.V);
  std::vector<HeadAttentionGradients> heads(static_cast<std::size_t>(mla.H));
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t h = 0; h < mla.H; ++h) {
    const HeadTensors head = tensors_of_head(mla, s, h);
    heads[static_cast<std::size_t>(h)] =
        stages.attend_backward(attention_of(mla, s, head), columns_of(d_o, s.rows, mla.H * mla.V, h * mla.V, mla.V));
  }
  SequenceGradients d{std::vector<float>(static_cast<std::size_t>(s.rows * mla.H * wide)),
                      std::vector<float>(static_cast<std::size_t>(M * up)), std::vector<float>(static_cast<std::size_t>(M * mla.K_shared))};
  for (std::int64_t h = 0; h < mla.H; ++h) {
    const HeadAttentionGradients& head = heads[static_cast<std::size_t>(h)];
    put_columns(head.q, s.rows, wide, d.q, mla.H * wide, h * wide);
    put_columns(columns_of(head.k, M, wide, 0, mla.K), M, mla.K, d.kv, up, h * (mla.K + mla.V));
    put_columns(head.v, M, mla.V, d.kv, up, h * (mla.K + mla.V) + mla.K);
    add(d.shared, columns_of(head.k, M, wide, mla.K, mla.K_shared));
  }
  return d;
}

void check_cotangents(const Mla& mla, const MlaInput& input, const MlaCache& after, const MlaCotangents& d) {
  if (!d.y.empty() && static_cast<std::int64_t>(d.y.size()) != input.B * input.T * mla.D)
    throw std::invalid_argument(fmt::format("MLA: the cotangent of y has {} numbers, not {}", d.y.size(), input.B * input.T * mla.D));
  if (d.cache.empty()) return;
  if (d.cache.size() != after.rows.size())
    throw std::invalid_argument(fmt::format("MLA: the cotangent of the cache has {} sequences, not {}", d.cache.size(), after.rows.size()));
  for (std::size_t n = 0; n < d.cache.size(); ++n)
    if (d.cache[n].size() != after.rows[n].size())
      throw std::invalid_argument(
          fmt::format("MLA: the cotangent of the cache of sequence {} has {} numbers, not {}", n, d.cache[n].size(), after.rows[n].size()));
}

} // namespace

MlaGradients run_mla_backward(const MlaStages& stages, const Mla& mla, const MlaParameters& p, const MlaInput& input,
                              const MlaCache& before, const MlaCotangents& cotangents) {
  check_mla_call(mla, p, input, before);
  const PackedRows packed = packed_rows(input.B, input.T, input.cu_seqlens, input.mask);
  const std::vector<float> gathered = packed.gathered(input.x, mla.D);
  const std::span<const float> x = packed.all ? input.x : std::span<const float>(gathered);
  const std::int64_t R = packed.cu_seqlens.back(), wide = mla.H * (mla.K + mla.K_shared), values = mla.H * mla.V;
  const MlaTokens tokens = trace_tokens(stages, mla, p, R, x);
  MlaCache after = before;
  after.rows.resize(packed.cu_seqlens.size() - 1);
  for (std::size_t n = 0; n < after.rows.size(); ++n)
    append_tokens(mla, tokens, packed.cu_seqlens[n], packed.cu_seqlens[n + 1], after.rows[n]);
  check_cotangents(mla, input, after, cotangents);

  const Linear o_proj{values, mla.D, p.o_proj}, kv_up{mla.rank, mla.H * (mla.K + mla.V), p.kv_up};
  std::vector<float> d_y = packed.gathered(cotangents.y, cotangents.y.empty() ? 0 : mla.D);
  if (packed.all) d_y.assign(cotangents.y.begin(), cotangents.y.end());
  d_y.resize(static_cast<std::size_t>(R * mla.D), 0.0f);
  std::vector<float> d_o(static_cast<std::size_t>(R * values), 0.0f), o, d_q, d_latent, d_shared;
  add_linear_input_gradient(o_proj, R, d_y, d_o);

  MlaGradients d;
  d.parameters.kv_up.assign(p.kv_up.size(), 0.0f);
  d.cache.resize(before.rows.size());
  for (std::size_t n = 0; n < after.rows.size(); ++n) {
    const std::int64_t first = packed.cu_seqlens[n], last = packed.cu_seqlens[n + 1], M = after.tokens(mla, static_cast<std::int64_t>(n));
    MlaSequence s = sequence_of(mla, tokens, first, last, after.rows[n]);
    make_keys_and_values(mla, p, s);
    const std::vector<float> here = attend_all(stages, mla, s);
    o.insert(o.end(), here.begin(), here.end());
    SequenceGradients back = attend_all_backward(
        stages, mla, s,
        std::span<const float>(d_o).subspan(static_cast<std::size_t>(first * values), static_cast<std::size_t>((last - first) * values)));
    d_q.insert(d_q.end(), back.q.begin(), back.q.end());
    add(d.parameters.kv_up, linear_weight_gradient(kv_up, M, s.latent, back.kv));
    std::vector<float> d_rows_latent(static_cast<std::size_t>(M * mla.rank), 0.0f);
    add_linear_input_gradient(kv_up, M, back.kv, d_rows_latent);
    std::vector<float> d_rows(static_cast<std::size_t>(M * mla.cached()), 0.0f);
    put_columns(d_rows_latent, M, mla.rank, d_rows, mla.cached(), 0);
    put_columns(back.shared, M, mla.K_shared, d_rows, mla.cached(), mla.rank);
    if (!cotangents.cache.empty()) add(d_rows, cotangents.cache[n]);
    const std::span<const float> own = std::span<const float>(d_rows).subspan(static_cast<std::size_t>(s.past * mla.cached()));
    const std::vector<float> own_latent = columns_of(own, s.rows, mla.cached(), 0, mla.rank);
    const std::vector<float> own_shared = columns_of(own, s.rows, mla.cached(), mla.rank, mla.K_shared);
    d_latent.insert(d_latent.end(), own_latent.begin(), own_latent.end());
    d_shared.insert(d_shared.end(), own_shared.begin(), own_shared.end());
    d_rows.resize(static_cast<std::size_t>(s.past * mla.cached()));
    if (!before.rows.empty()) d.cache[n] = std::move(d_rows);
  }

  std::vector<float> d_x(x.size(), 0.0f);
  const auto project_back = [&](const Linear& l, std::span<const float> d_out) {
    add_linear_input_gradient(l, R, d_out, d_x);
    return linear_weight_gradient(l, R, x, d_out);
  };
  d.parameters.o_proj = linear_weight_gradient(o_proj, R, o, d_y);
  d.parameters.q_proj = project_back({mla.D, wide, p.q_proj}, d_q);
  RmsNormGradients norm = stages.normalise_backward({mla.rank, mla.norm_epsilon, p.kv_norm}, R, tokens.down, d_latent);
  d.parameters.kv_norm = std::move(norm.weight);
  d.parameters.kv_down = project_back({mla.D, mla.rank, p.kv_down}, norm.x);
  if (mla.K_shared > 0) d.parameters.k_shared = project_back({mla.D, mla.K_shared, p.k_shared}, d_shared);
  d.x = packed.scattered(d_x, mla.D);
  return d;
}

MlaGradients mla_backward(const Mla& layer, const MlaParameters& p, const MlaInput& input, const MlaCache& before,
                          const MlaCotangents& cotangents) {
  return run_mla_backward({}, layer, p, input, before, cotangents);
}

} // namespace kdacheck::modules
