#pragma once
// The oracle of states stepped token by token, in any number type, for calls that give the step's vectors as they are.

#include "../../kernels/modules/dplr_transition.hpp"
#include "../../reference/adjoint.hpp"
#include "core_oracle.hpp"

namespace kdacheck {

/// d loss / d of the diagonal of a step, from what `step_reverse` is given.
template <Number N> std::vector<N> diagonal_gradient(Rule rule, const Token<N>& t, const State<N>& before, State<N> Lambda) {
  if (rule == Rule::kda) add_outer(Lambda, times(N(-t.beta), t.k), transposed_times(Lambda, t.k));
  return row_dots(before, Lambda);
}

/// Memory and, with cotangents, gradients of inputs and memory. Inputs alpha, k, beta, v, or d, a, b, k, v of the general rule; s gives H,
/// K and V.
template <Number N>
ExactTensors transition_oracle(Rule rule, const modules::StateShape& s, const modules::ModuleCall& call,
                               const modules::ModuleCotangents* d) {
  using core_detail::part_of_tensor;
  using layer_detail::put_part;
  using modules::tensor_named;
  const bool general = rule == Rule::dplr;
  ExactTensors result{.outputs = {}, .states = {{}}, .inputs = {}, .parameters = {}, .initials = {}};
  const CoreForm form{s.H, s.H, s.K, s.V, 1};
  const std::int64_t R = call.rows();
  Matrix<N> d_diagonal(R, s.H * s.K), d_a(R, s.H * s.K), d_b(R, s.H * s.K), d_k(R, s.H * s.K), d_beta(R, s.H), d_v(R, s.H * s.V);
  for (std::int64_t n = 0; n < call.sequences(); ++n)
    for (std::int64_t head = 0; head < s.H; ++head) {
      const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], last = call.cu_seqlens[static_cast<std::size_t>(n + 1)];
      std::vector<State<N>> states{core_state<N>(form, call.states, n, head)};
      std::vector<Token<N>> tokens;
      for (std::int64_t row = first; row < last; ++row) {
        const auto part = [&](const char* name, std::int64_t width) {
          return part_of_tensor<N>(tensor_named(call.inputs, name), row * s.H + head, width);
        };
        Token<N> t;
        t.alpha = part(general ? "d" : "alpha", s.K), t.k = part("k", s.K), t.v = part("v", s.V);
        if (general)
          t.a = part("a", s.K), t.b = part("b", s.K);
        else
          t.beta = part("beta", 1)[0];
        states.push_back(step(rule, t, states.back()));
        tokens.push_back(std::move(t));
      }
      append(result.states[0], states.back().element);
      if (!d) continue;
      State<N> Lambda = core_state<N>(form, d->states, n, head);
      for (std::int64_t row = last - 1; row >= first; --row) {
        const auto here = static_cast<std::size_t>(row - first);
        put_part(d_diagonal, row, head, diagonal_gradient(rule, tokens[here], states[here], Lambda));
        const TokenGradient<N> back = step_reverse(rule, tokens[here], states[here], Lambda);
        put_part(d_k, row, head, back.k), put_part(d_v, row, head, back.v);
        if (general) put_part(d_a, row, head, back.a), put_part(d_b, row, head, back.b);
        d_beta(row, head) = back.beta;
      }
      if (!call.states.empty()) result.initials.resize(1), append(result.initials[0], Lambda.element);
    }
  if (!d) return result;
  const std::vector<const Matrix<N>*> gradients = general ? std::vector<const Matrix<N>*>{&d_diagonal, &d_a, &d_b, &d_k, &d_v}
                                                          : std::vector<const Matrix<N>*>{&d_diagonal, &d_k, &d_beta, &d_v};
  for (const Matrix<N>* gradient : gradients) append(result.inputs.emplace_back(), gradient->element);
  return result;
}

} // namespace kdacheck
