#include "rounded_token.hpp"

#include "lanes.hpp"
#include "operand.hpp"

#include <vector>

namespace kdacheck::cpu {
namespace {

using Numbers = std::vector<float>; // a row [K], a column [V] or a matrix [K,V], V padded

/// The sizes of a head, and its numbers as operands.
struct Operands {
  OperandFormat format;
  std::int64_t K, V;

  Operands(const Contract& contract, const Inputs& inputs)
      : format{contract.operands, contract.truncate}, K(inputs.shape.K), V(padded(inputs.shape.V)) {}

  Numbers rounded(const float* numbers, std::int64_t count) const {
    Numbers result(numbers, numbers + count);
    round_operand(format, result.data(), count);
    return result;
  }
  Numbers row(const float* x) const { return rounded(x, K); }
  Numbers column(const float* x) const { return rounded(x, V); }
  Numbers matrix(const float* x) const { return rounded(x, K * V); }

  /// matrix^T row
  Numbers under(const Numbers& row, const Numbers& matrix) const {
    Numbers sums(static_cast<std::size_t>(V), 0.0f);
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j)
        sums[static_cast<std::size_t>(j)] += row[static_cast<std::size_t>(c)] * matrix[static_cast<std::size_t>(c * V + j)];
    return sums;
  }
  /// matrix column, into [K]
  void across(const Numbers& matrix, const Numbers& column, float* sums) const {
    for (std::int64_t c = 0; c < K; ++c) {
      sums[c] = 0;
      for (std::int64_t j = 0; j < V; ++j) sums[c] += matrix[static_cast<std::size_t>(c * V + j)] * column[static_cast<std::size_t>(j)];
    }
  }
  /// into += factor row column^T
  void add(float factor, const Numbers& row, const Numbers& column, float* into) const {
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j)
        into[c * V + j] += factor * row[static_cast<std::size_t>(c)] * column[static_cast<std::size_t>(j)];
  }
  Numbers decayed(const TokenRows& token, const float* state) const {
    Numbers result(state, state + K * V);
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) result[static_cast<std::size_t>(c * V + j)] *= token.alpha[c];
    return result;
  }
};

/// Kept in a format, without the scale of an operand.
void keep(Format format, float* numbers, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) numbers[i] = round_to(format, numbers[i]);
}

/// What the gradient of the decay reads: operands, or states as they were stored where these are coarser.
Numbers read_for_decay(const Contract& contract, const Operands& operands, const Numbers& state) {
  Numbers result = operands.matrix(state.data());
  if (unit_roundoff(contract.gradient_state) <= unit_roundoff(contract.operands)) return result;
  result = state;
  keep(contract.gradient_state, result.data(), operands.K * operands.V);
  return result;
}

void rows_of_products(const Numbers& left, const Numbers& right, std::int64_t K, std::int64_t V, float* sums) {
  for (std::int64_t c = 0; c < K; ++c) {
    sums[c] = 0;
    for (std::int64_t at = c * V; at < (c + 1) * V; ++at)
      sums[c] += left[static_cast<std::size_t>(at)] * right[static_cast<std::size_t>(at)];
  }
}

void retreat_kda(const Contract& contract, const Operands& of, const TokenRows& token, const Numbers& before, float* adjoint,
                 TokenAdjoint& d) {
  const std::int64_t K = of.K, V = of.V;
  const Numbers decayed = of.decayed(token, before.data()), X = of.matrix(decayed.data()), lambda = of.matrix(adjoint);
  const Numbers key = of.row(token.k), gathered = of.under(key, lambda), read = of.under(key, X);
  Numbers residual(read), weighted(gathered);
  for (std::int64_t j = 0; j < V; ++j) {
    const auto column = static_cast<std::size_t>(j);
    residual[column] = token.v[j] - read[column], weighted[column] = token.beta * gathered[column];
  }
  const Numbers w = of.column(residual.data()), m = of.column(gathered.data()), sent = of.column(weighted.data());
  d.beta = 0;
  for (std::int64_t j = 0; j < V; ++j) {
    d.v[j] = token.beta * m[static_cast<std::size_t>(j)];
    d.beta += m[static_cast<std::size_t>(j)] * w[static_cast<std::size_t>(j)];
  }
  Numbers of_write(static_cast<std::size_t>(K)), of_read(of_write);
  of.across(lambda, w, of_write.data()), of.across(X, m, of_read.data());
  of.add(-1, key, sent, adjoint);
  rows_of_products(read_for_decay(contract, of, decayed), read_for_decay(contract, of, Numbers(adjoint, adjoint + K * V)), K, V, d.g);
  for (std::int64_t c = 0; c < K; ++c) {
    const float writes = of_write[static_cast<std::size_t>(c)], reads = of_read[static_cast<std::size_t>(c)];
    d.k[c] = token.beta * (writes - reads);
    if (d.g_sum) d.g[c] = d.g_sum[c] += token.q[c] * d.q[c] - token.k[c] * (token.beta * writes + token.beta * reads);
    for (std::int64_t j = 0; j < V; ++j) adjoint[c * V + j] *= token.alpha[c];
  }
}

void retreat_dplr(const Contract& contract, const Operands& of, const TokenRows& token, const Numbers& before, float* adjoint,
                  TokenAdjoint& d) {
  const std::int64_t K = of.K, V = of.V;
  const Numbers S = of.matrix(before.data()), lambda = of.matrix(adjoint), a = of.row(token.a), b = of.row(token.b);
  const Numbers w = of.column(of.under(b, S).data()), u = of.column(of.under(a, lambda).data()), v = of.under(of.row(token.k), lambda);
  std::copy(v.begin(), v.end(), d.v);
  of.across(lambda, w, d.a), of.across(lambda, of.column(token.v), d.k), of.across(S, u, d.b);
  rows_of_products(read_for_decay(contract, of, of.decayed(token, before.data())),
                   read_for_decay(contract, of, Numbers(adjoint, adjoint + K * V)), K, V, d.g);
  for (std::int64_t c = 0; c < K; ++c) {
    d.a[c] = -d.a[c], d.b[c] = -d.b[c];
    if (d.g_sum) {
      d.g[c] = d.g_sum[c] += token.q[c] * d.q[c] - (token.a[c] * d.a[c] + token.k[c] * d.k[c]);
      d.g_sum[c] += token.b[c] * d.b[c];
    }
    for (std::int64_t j = 0; j < V; ++j) adjoint[c * V + j] *= token.alpha[c];
  }
  of.add(-1, b, u, adjoint);
}

} // namespace

bool rounds_tokens(const Contract& contract) {
  return contract.operands != Format::fp32 || contract.state != Format::fp32 || contract.gradient_state != Format::fp32;
}

void advance_rounded(const Contract& contract, const Inputs& inputs, const TokenRows& token, const float* state, float* next_state) {
  const Operands of(contract, inputs);
  const Numbers before(state, state + of.K * of.V), decayed = of.decayed(token, state), key = of.row(token.k);
  std::copy(decayed.begin(), decayed.end(), next_state);
  if (inputs.options.rule == Rule::kda) {
    Numbers update = of.under(key, of.matrix(decayed.data()));
    for (std::int64_t j = 0; j < of.V; ++j)
      update[static_cast<std::size_t>(j)] = token.beta * (token.v[j] - update[static_cast<std::size_t>(j)]);
    of.add(1, key, of.column(update.data()), next_state);
  } else {
    const Numbers read = of.under(of.row(token.b), of.matrix(before.data()));
    of.add(-1, of.row(token.a), of.column(read.data()), next_state);
    of.add(1, key, of.column(token.v), next_state);
  }
  keep(contract.state, next_state, of.K * of.V);
  if (!token.o) return;
  const Numbers o = of.under(of.row(token.q), of.matrix(next_state));
  std::copy(o.begin(), o.end(), token.o);
}

void retreat_rounded(const Contract& contract, const Inputs& inputs, const TokenRows& token, const float* state, float* adjoint,
                     TokenAdjoint& d) {
  const Operands of(contract, inputs);
  const Numbers before(state, state + of.K * of.V), d_o = of.column(d.d_o);
  Numbers after(before.size());
  advance_rounded(contract, inputs, token, state, after.data());
  of.across(of.matrix(after.data()), d_o, d.q);
  of.add(1, of.row(token.q), d_o, adjoint);
  if (inputs.options.rule == Rule::kda)
    retreat_kda(contract, of, token, before, adjoint, d);
  else
    retreat_dplr(contract, of, token, before, adjoint, d);
  keep(contract.state, adjoint, of.K * of.V);
}

} // namespace kdacheck::cpu
