#pragma once
// KDA's oracle on the calls of modules that give q, k, v, log_decay and beta as they are, in any number type.

#include "../../reference/kda_layer_adjoint.hpp"
#include "kda_layer_oracle.hpp"

namespace kdacheck {

/// Sizes of such a call; scale is exactly this number.
struct CoreForm {
  std::int64_t H = 1, HV = 1, K = 1, V = 1;
  double scale = 1;
  bool normalise = false; ///< q and k are divided by their norms
};

namespace core_detail {

template <Number N> std::vector<N> part_of_tensor(const modules::NamedTensor& tensor, std::int64_t row, std::int64_t width) {
  std::vector<N> values;
  for (std::int64_t i = 0; i < width; ++i)
    values.push_back(N(static_cast<double>(tensor.values[static_cast<std::size_t>(row * width + i)])));
  return values;
}

} // namespace core_detail

/// Tokens [first, first + T) as a value head sees them.
template <Number N>
std::vector<Token<N>> core_tokens_of(const CoreForm& f, const modules::ModuleCall& call, std::int64_t head, std::int64_t first,
                                     std::int64_t T) {
  using core_detail::part_of_tensor;
  using std::exp;
  const std::int64_t shared = head / (f.HV / f.H);
  std::vector<Token<N>> tokens;
  for (std::int64_t row = first; row < first + T; ++row) {
    Token<N> t;
    t.q = part_of_tensor<N>(tensor_named(call.inputs, "q"), row * f.H + shared, f.K);
    t.k = part_of_tensor<N>(tensor_named(call.inputs, "k"), row * f.H + shared, f.K);
    if (f.normalise) t.q = normalised<N>(t.q), t.k = normalised<N>(t.k);
    t.v = part_of_tensor<N>(tensor_named(call.inputs, "v"), row * f.HV + head, f.V);
    t.log_decay = part_of_tensor<N>(tensor_named(call.inputs, "log_decay"), row * f.HV + head, f.K);
    for (const N& g : t.log_decay) t.alpha.push_back(exp(g));
    t.beta = part_of_tensor<N>(tensor_named(call.inputs, "beta"), row * f.HV + head, 1)[0];
    tokens.push_back(std::move(t));
  }
  return tokens;
}

/// State of a sequence's head; zero where there is none.
template <Number N> State<N> core_state(const CoreForm& f, const modules::NamedTensors& states, std::int64_t n, std::int64_t head) {
  State<N> S(f.K, f.V);
  if (!states.empty()) S.element = matrix_from<N>(tensor_named(states, "memory"), f.K, f.V, (n * f.HV + head) * f.K).element;
  return S;
}

/// o and memory, and gradients of q, k, v, log_decay, beta and memory. chunk = 0: by the recurrence.
template <Number N>
ExactTensors core_oracle(const CoreForm& f, const modules::ModuleCall& call, const modules::ModuleCotangents* d, std::int64_t chunk) {
  using namespace layer_detail;
  const std::int64_t R = call.rows();
  Matrix<N> o(R, f.HV * f.V), d_q(R, f.H * f.K), d_k(R, f.H * f.K), d_v(R, f.HV * f.V), d_g(R, f.HV * f.K), d_beta(R, f.HV);
  ExactTensors result{.outputs = {}, .states = {{}}, .inputs = {}, .parameters = {}, .initials = {}};
  const N scale(f.scale);
  for (std::int64_t n = 0; n < call.sequences(); ++n)
    for (std::int64_t head = 0; head < f.HV; ++head) {
      const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)], T = call.cu_seqlens[static_cast<std::size_t>(n + 1)] - first;
      const std::vector<Token<N>> tokens = core_tokens_of<N>(f, call, head, first, T);
      std::vector<State<N>> states{core_state<N>(f, call.states, n, head)};
      for (std::int64_t t = 0; t < T && chunk == 0; ++t) {
        states.push_back(step(Rule::kda, tokens[static_cast<std::size_t>(t)], states.back()));
        put_part(o, first + t, head, read_out(scale, tokens[static_cast<std::size_t>(t)], states.back()));
      }
      for (std::int64_t t = 0; t < T && chunk > 0; t += chunk) {
        const std::vector<Token<N>> here(tokens.begin() + t, tokens.begin() + std::min(t + chunk, T));
        const Chunk<N> solved = chunk_of(Rule::kda, here, scale, as_matrix(states.back()));
        for (std::int64_t i = 0; i < solved.O.rows; ++i) put_part(o, first + t + i, head, part(solved.O, i, 0, f.V));
        states.push_back(as_state(solved.end));
      }
      append(result.states[0], states.back().element);
      if (!d) continue;
      const Matrix<N> d_o = d->outputs.empty() ? Matrix<N>(T, f.V) : matrix_of<N>(T, f.V, [&](std::int64_t t, std::int64_t j) {
        return N(
            static_cast<double>(tensor_named(d->outputs, "o").values[static_cast<std::size_t>(((first + t) * f.HV + head) * f.V + j)]));
      });
      State<N> d_state = core_state<N>(f, d->states, n, head);
      const std::vector<TokenGradient<N>> back = core_reverse(tokens, states, scale, chunk, d_o, d_state);
      const std::int64_t shared = head / (f.HV / f.H);
      for (std::int64_t t = 0; t < T; ++t) {
        TokenGradient<N> token = back[static_cast<std::size_t>(t)];
        if (f.normalise) {
          const std::int64_t row = (first + t) * f.H + shared;
          token.q = normalised_reverse<N>(core_detail::part_of_tensor<N>(tensor_named(call.inputs, "q"), row, f.K), token.q);
          token.k = normalised_reverse<N>(core_detail::part_of_tensor<N>(tensor_named(call.inputs, "k"), row, f.K), token.k);
        }
        add_part(d_q, first + t, shared, token.q), add_part(d_k, first + t, shared, token.k);
        put_part(d_v, first + t, head, token.v), put_part(d_g, first + t, head, token.log_decay);
        d_beta(first + t, head) = token.beta;
      }
      if (!call.states.empty()) result.initials.resize(1), append(result.initials[0], d_state.element);
    }
  append(result.outputs.emplace_back(), o.element);
  if (d)
    for (const auto* gradient : {&d_q, &d_k, &d_v, &d_g, &d_beta}) append(result.inputs.emplace_back(), gradient->element);
  return result;
}

/// G, rows of Akk and Aqk, W, U, inter, intra and memory by chunks of C.
template <Number N> ExactTensors parts_oracle(const CoreForm& f, const modules::ModuleCall& call, std::int64_t C) {
  using namespace layer_detail;
  using namespace chunk_detail;
  const std::int64_t R = call.rows();
  Matrix<N> G(R, f.HV * f.K), Akk(R, f.HV * C), Aqk(R, f.HV * C);
  Matrix<N> W(R, f.HV * f.K), U(R, f.HV * f.V), inter(R, f.HV * f.V), intra(R, f.HV * f.V);
  ExactTensors result{.outputs = {}, .states = {{}}, .inputs = {}, .parameters = {}, .initials = {}};
  const N scale(f.scale);
  for (std::int64_t n = 0; n < call.sequences(); ++n)
    for (std::int64_t head = 0; head < f.HV; ++head) {
      const std::int64_t start = call.cu_seqlens[static_cast<std::size_t>(n)], T = call.cu_seqlens[static_cast<std::size_t>(n + 1)] - start;
      const std::vector<Token<N>> tokens = core_tokens_of<N>(f, call, head, start, T);
      Matrix<N> S = as_matrix(core_state<N>(f, call.states, n, head));
      for (std::int64_t t = 0; t < T; t += C) {
        const std::vector<Token<N>> here(tokens.begin() + t, tokens.begin() + std::min(t + C, T));
        const Chunk<N> chunk = chunk_of(Rule::kda, here, scale, S);
        const Matrix<N> q = rows_scaled(rows_of(here, &Token<N>::q), [&](std::int64_t) { return scale; });
        const Matrix<N> between = scaled_by_exp(q, chunk.G) * S, inside = chunk.Aqk * chunk.U;
        for (std::int64_t i = 0; i < chunk.U.rows; ++i) {
          std::vector<N> keys = part(chunk.Akk, i, 0, chunk.Akk.columns), queries = part(chunk.Aqk, i, 0, chunk.Aqk.columns);
          keys.resize(static_cast<std::size_t>(C), N(0.0)), queries.resize(static_cast<std::size_t>(C), N(0.0));
          put_part(G, start + t + i, head, part(chunk.G, i, 0, f.K));
          put_part(Akk, start + t + i, head, keys), put_part(Aqk, start + t + i, head, queries);
          put_part(W, start + t + i, head, part(chunk.W, i, 0, f.K)), put_part(U, start + t + i, head, part(chunk.U, i, 0, f.V));
          put_part(inter, start + t + i, head, part(between, i, 0, f.V)), put_part(intra, start + t + i, head, part(inside, i, 0, f.V));
        }
        S = chunk.end;
      }
      append(result.states[0], S.element);
    }
  for (const auto* tensor : {&G, &Akk, &Aqk, &W, &U, &inter, &intra}) append(result.outputs.emplace_back(), tensor->element);
  return result;
}

} // namespace kdacheck
