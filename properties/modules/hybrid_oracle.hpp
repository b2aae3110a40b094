#pragma once
// The stack's oracle on a module's call, in any number type.

#include "../../kernels/modules/hybrid_module.hpp"
#include "../../reference/hybrid.hpp"
#include "mla_oracle.hpp"

namespace kdacheck {

HybridForm hybrid_form(const modules::HybridStack&);

/// Memory of sequence n. MLA layers have as many rows as `lengths` says of their layer.
template <Number N>
std::vector<HybridMemory<N>> hybrid_memory(const modules::HybridStack& s, const modules::NamedTensors& states, std::int64_t n,
                                           const std::vector<std::int64_t>& lengths) {
  std::vector<HybridMemory<N>> memory(s.pattern.size());
  for (std::size_t l = 0; l < memory.size(); ++l) {
    const modules::NamedTensors own = modules::layer_tensors(states, l);
    if (s.pattern[l] == modules::Mixer::mla)
      memory[l].mla = cache_rows<N>(s.mla, own, n, lengths[l]);
    else
      memory[l].kda = layer_memory<N>(s.kda, own, n);
  }
  return memory;
}

template <Number N>
void append(std::vector<std::vector<double>>& to, const modules::HybridStack& s, const std::vector<HybridMemory<N>>& memory,
            std::int64_t capacity, bool counted) {
  std::size_t at = 0;
  const auto merge = [&](const std::vector<std::vector<double>>& tensors) {
    to.resize(std::max(to.size(), at + tensors.size()));
    for (const std::vector<double>& numbers : tensors) to[at].insert(to[at].end(), numbers.begin(), numbers.end()), ++at;
  };
  for (std::size_t l = 0; l < memory.size(); ++l) {
    std::vector<std::vector<double>> own;
    if (s.pattern[l] == modules::Mixer::mla)
      append_cache(own, memory[l].mla, capacity, counted ? static_cast<double>(memory[l].mla.rows) : 0.0);
    else
      append(own, memory[l].kda);
    merge(own);
  }
}

/// Outputs, states and, with cotangents, gradients of a call without padding. chunk as in `run_layer`; MLA
/// layers absorb their W_up where KDA layers go by chunks: the second order of evaluation in both.
template <Number N>
ExactTensors hybrid_oracle(const modules::HybridStack& s, std::int64_t capacity, const modules::ModuleCall& call,
                           const modules::ModuleCotangents* d, std::int64_t chunk) {
  const HybridForm form = hybrid_form(s);
  const std::size_t L = s.pattern.size();
  std::vector<HybridTensors<N>> p(L), d_p(L);
  for (std::size_t l = 0; l < L; ++l) {
    const modules::NamedTensors own = modules::layer_tensors(call.parameters, l);
    p[l].norm = numbers_from<N>(own, "norm"), d_p[l].norm = std::vector<N>(p[l].norm.size(), N(0.0));
    if (form.latent[l])
      p[l].mla = latent_tensors<N>(s.mla, own), d_p[l].mla = zero_tensors(p[l].mla);
    else
      p[l].kda = layer_tensors<N>(s.kda, own), d_p[l].kda = zero_tensors(p[l].kda);
  }
  ExactTensors result{.outputs = {{}}, .states = {}, .inputs = {{}}, .parameters = {}, .initials = {}};
  for (std::int64_t n = 0; n < call.sequences(); ++n) {
    const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], T = call.cu_seqlens[static_cast<std::size_t>(n + 1)] - first;
    std::vector<std::int64_t> before(L, 0), behind(L, 0);
    for (std::size_t l = 0; l < L; ++l)
      if (form.latent[l]) before[l] = cached_tokens(modules::layer_tensors(call.states, l), n), behind[l] = before[l] + T;
    const Matrix<N> x = matrix_from<N>(tensor_named(call.inputs, "x"), T, s.D(), first);
    const std::vector<HybridMemory<N>> start = hybrid_memory<N>(s, call.states, n, before);
    const HybridRun<N> run = run_hybrid(form, p, x, start, chunk, chunk > 0);
    append(result.outputs[0], run.h.back().element);
    append(result.states, s, run.end, capacity, true);
    if (!d) continue;
    const Matrix<N> d_y = d->outputs.empty() ? Matrix<N>(T, s.D()) : matrix_from<N>(tensor_named(d->outputs, "y"), T, s.D(), first);
    const HybridReverse<N> back = hybrid_reverse(form, p, start, chunk, run, d_y, hybrid_memory<N>(s, d->states, n, behind), d_p);
    append(result.inputs[0], back.x.element);
    if (!call.states.empty()) append(result.initials, s, back.start, capacity, false);
  }
  for (std::size_t l = 0; l < L && d; ++l) {
    append(result.parameters.emplace_back(), d_p[l].norm);
    const std::vector<std::vector<double>> own = form.latent[l] ? in_order(s.mla, d_p[l].mla) : in_order(s.kda, d_p[l].kda);
    result.parameters.insert(result.parameters.end(), own.begin(), own.end());
  }
  return result;
}

} // namespace kdacheck
