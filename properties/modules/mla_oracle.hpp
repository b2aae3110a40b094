#pragma once
// Latent attention's oracle on a module's call, in any number type.

#include "../../kernels/modules/mla_module.hpp"
#include "../../reference/latent_attention_adjoint.hpp"
#include "kda_layer_oracle.hpp"

namespace kdacheck {

LatentForm latent_form(const modules::Mla&);

template <Number N> LatentTensors<N> latent_tensors(const modules::Mla& m, const modules::NamedTensors& p) {
  const auto matrix = [&](std::string_view name, std::int64_t rows, std::int64_t columns) {
    return matrix_from<N>(tensor_named(p, name), rows, columns);
  };
  return {.q_proj = matrix("q_proj", m.D, m.H * (m.K + m.K_shared)),
          .kv_down = matrix("kv_down", m.D, m.rank),
          .kv_norm = numbers_from<N>(p, "kv_norm"),
          .kv_up = matrix("kv_up", m.rank, m.H * (m.K + m.V)),
          .k_shared = m.K_shared > 0 ? matrix("k_shared", m.D, m.K_shared) : Matrix<N>(m.D, 0),
          .o_proj = matrix("o_proj", m.H * m.V, m.D)};
}

/// Tokens that sequence n has in a module's states; none where there are no states.
inline std::int64_t cached_tokens(const modules::NamedTensors& states, std::int64_t n) {
  return states.empty() ? 0 : static_cast<std::int64_t>(tensor_named(states, "length").values[static_cast<std::size_t>(n)]);
}

/// The first `length` rows of sequence n's padded cache.
template <Number N> Matrix<N> cache_rows(const modules::Mla& m, const modules::NamedTensors& states, std::int64_t n, std::int64_t length) {
  if (states.empty()) return Matrix<N>(length, m.cached());
  const modules::NamedTensor& latent = tensor_named(states, "latent");
  return matrix_from<N>(latent, length, m.cached(), n * latent.shape[1]);
}

/// A cache as the module pads it: rows, zeros to the capacity; and its length.
template <Number N> void append_cache(std::vector<std::vector<double>>& to, const Matrix<N>& rows, std::int64_t capacity, double length) {
  to.resize(std::max<std::size_t>(to.size(), 2));
  append(to[0], rows.element);
  to[0].resize(to[0].size() + static_cast<std::size_t>((capacity - rows.rows) * rows.columns), 0.0);
  to[1].push_back(length);
}

/// In the order of for_each_tensor.
template <Number N> std::vector<std::vector<double>> in_order(const modules::Mla& m, const LatentTensors<N>& d) {
  std::vector<std::vector<double>> result;
  append(result.emplace_back(), d.q_proj.element), append(result.emplace_back(), d.kv_down.element);
  append(result.emplace_back(), d.kv_norm), append(result.emplace_back(), d.kv_up.element);
  if (m.K_shared > 0) append(result.emplace_back(), d.k_shared.element);
  append(result.emplace_back(), d.o_proj.element);
  return result;
}

/// Outputs, states and, with cotangents, gradients of a call without padding.
template <Number N>
ExactTensors mla_oracle(const modules::Mla& m, std::int64_t capacity, const modules::ModuleCall& call, const modules::ModuleCotangents* d,
                        bool absorbed) {
  const LatentForm form = latent_form(m);
  const LatentTensors<N> p = latent_tensors<N>(m, call.parameters);
  LatentTensors<N> d_p = zero_tensors(p);
  ExactTensors result{.outputs = {{}}, .states = {}, .inputs = {{}}, .parameters = {}, .initials = {}};
  for (std::int64_t n = 0; n < call.sequences(); ++n) {
    const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], T = call.cu_seqlens[static_cast<std::size_t>(n + 1)] - first;
    const Matrix<N> x = matrix_from<N>(tensor_named(call.inputs, "x"), T, m.D, first);
    const Matrix<N> start = cache_rows<N>(m, call.states, n, cached_tokens(call.states, n));
    const LatentRun<N> run = run_latent(form, p, x, start, absorbed);
    append(result.outputs[0], run.y.element);
    append_cache(result.states, run.end, capacity, static_cast<double>(run.end.rows));
    if (!d) continue;
    const Matrix<N> d_y = d->outputs.empty() ? Matrix<N>(T, m.D) : matrix_from<N>(tensor_named(d->outputs, "y"), T, m.D, first);
    const LatentReverse<N> back = latent_reverse(form, p, x, start, run, d_y, cache_rows<N>(m, d->states, n, run.end.rows), d_p);
    append(result.inputs[0], back.x.element);
    if (!call.states.empty()) append_cache(result.initials, back.start, capacity, 0.0);
  }
  if (d) result.parameters = in_order(m, d_p);
  return result;
}

} // namespace kdacheck
