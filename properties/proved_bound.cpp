// Running error bound of the token recurrence, column by column of the state. With exact state s, computed state s + e,
// |e| <= rho, u the unit roundoff of fp32 and gamma = 1.01 (K + 3) u, one token makes at most
//
//   decay      d^ = a^ (.) s^        |d^ - D s| <= a_max rho + E,  E = |(eta + 2u) (.) D s| + max(a (eta + 2u)) rho
//              eta_c: error of exp and of the log decay of channel c
//   readback   p^ = k . d^           |p^ - k . d^| <= gamma kappa |d^|, and the sum may start from v: + gamma |v|
//   write      c^ = b (v - p^)       relative error 3u + error of beta
//   new state  s' = d^ + k c^        2u kappa |c^| + u_s |s'|, u_s the stored state's
//   rho' = n_P (a_max rho + E) + |b| kappa gamma (kappa |d^| + |v|) + kappa |c^| (5u + error of beta) + u_s (|d^| + kappa |c^|)
//   |o^ - o| <= |scale| |q| (rho' + (gamma + 4u) (|d^| + kappa |c^|))
//
// where n_P = max(1, |1 - b kappa^2|) is the norm of I - b k k^T and kappa = |k|. A norm formed inside the kernel moves k
// and q by a relative theta: k enters twice in I - b k k^T. Second-order terms lie inside the factors 1.01 (u < 2^-23,
// K <= 1024); bounds are rounded up by 1 + 2^-30 per token, far above the K + 20 roundings of fp64 that a line has. Every
// operation may flush to zero below 2^-126.

#include "proved_bound.hpp"

#include "budget_head.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

constexpr double u = 0x1p-24, up = 1 + 0x1p-30;

/// Runs the exact recurrence in fp64 beside the bound; `token` gets the largest bound over the columns, `final` per column.
void bound_head(const Contract& contract, const Head& head, std::vector<double>& token, std::vector<double>& final) {
  const std::int64_t K = head.K, V = head.V;
  const double gamma = 1.01 * static_cast<double>(K + 3) * u, of_exp = 2 * contract.exp_ulp * u;
  const double theta = head.normalised ? static_cast<double>(K) * u + 8 * u : 0; // any order of the sum of squares
  std::vector<double> state = head.state, decayed(static_cast<std::size_t>(V)), scaled(decayed), dot(decayed), rho(decayed);
  for (std::int64_t t = 0; t < head.tokens; ++t) {
    std::fill(decayed.begin(), decayed.end(), 0.0), std::fill(scaled.begin(), scaled.end(), 0.0), std::fill(dot.begin(), dot.end(), 0.0);
    double largest_decay = 0, largest_error = 0, key_square = 0, query_square = 0;
    for (std::int64_t c = 0; c < K; ++c) {
      const auto entry = static_cast<std::size_t>(t * K + c);
      const double alpha = std::exp(head.g[entry]), k = head.k[entry];
      const double eta = 1.01 * (of_exp + u * std::abs(head.g[entry]) + head.gate_error[entry]) + 2 * u;
      largest_decay = std::max(largest_decay, alpha);
      largest_error = std::max(largest_error, alpha * eta);
      key_square += k * k, query_square += head.q[entry] * head.q[entry];
      for (std::int64_t j = 0; j < V; ++j) {
        double& s = state[static_cast<std::size_t>(c * V + j)];
        s *= alpha;
        decayed[static_cast<std::size_t>(j)] += s * s;
        scaled[static_cast<std::size_t>(j)] += eta * eta * s * s;
        dot[static_cast<std::size_t>(j)] += k * s;
      }
    }
    const double beta = head.beta[static_cast<std::size_t>(t)], of_beta = head.beta_error[static_cast<std::size_t>(t)];
    const double kappa = std::sqrt(key_square) * (1 + theta), norm = std::max(1.0, std::abs(1 - beta * key_square));
    const double flush = 0x1p-126 * static_cast<double>(K + 4) * (1 + kappa);
    const bool stored = (t + 1) % std::max<std::int64_t>(contract.chunk, 1) == 0 || t + 1 == head.tokens;
    const double of_state = stored ? std::max(u, unit_roundoff(contract.state)) : u;
    double worst = 0;
    for (std::int64_t j = 0; j < V; ++j) {
      const auto column = static_cast<std::size_t>(j);
      const double v = head.v[static_cast<std::size_t>(t * V + j)], exact = beta * (v - dot[column]);
      const double error = largest_decay * rho[column] + std::sqrt(scaled[column]) + largest_error * rho[column];
      const double size = std::sqrt(decayed[column]) + error; // of d^
      const double read = gamma * (kappa * size + std::abs(v)) + 2.1 * theta * kappa * size;
      const double write = (std::abs(exact) + std::abs(beta) * (kappa * error + read)) * (1 + 4 * u + of_beta); // of c^
      rho[column] = (norm * error + std::abs(beta) * kappa * read + kappa * write * (5 * u + of_beta + 1.01 * theta) +
                     of_state * (size + kappa * write) * 1.01 + flush) *
                    up;
      const double query = std::abs(head.scale) * std::sqrt(query_square) * (1 + theta);
      worst = std::max(worst, (query * (rho[column] + (gamma + 4 * u + theta) * (size + kappa * write)) + flush * (1 + query)) * up);
      for (std::int64_t c = 0; c < K; ++c)
        state[static_cast<std::size_t>(c * V + j)] += head.k[static_cast<std::size_t>(t * K + c)] * exact;
    }
    token[static_cast<std::size_t>(t)] = worst;
  }
  final = rho;
}

} // namespace

ProvedBound proved_bound(const Contract& contract, const Problem& problem) {
  const bool fp32 = contract.operands == Format::fp32 && contract.scores == Format::fp32 && contract.accumulate == Format::fp32;
  if (contract.order != Order::recurrence || !fp32 || problem.options.rule != Rule::kda) return {};
  const auto& [B, T, H, HV, K, V] = problem.shape;
  ProvedBound result;
  result.token.assign(static_cast<std::size_t>(B * T * HV), 0.0);
  result.state_row.assign(static_cast<std::size_t>(sequence_count(problem) * HV * K), 0.0);
  std::vector<std::int64_t> columns(static_cast<std::size_t>(V));
  for (std::int64_t j = 0; j < V; ++j) columns[static_cast<std::size_t>(j)] = j;
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < HV; ++head) {
      const Head data = read_head(contract, problem, sequence, head, columns);
      std::vector<double> token(static_cast<std::size_t>(sequence.length)), final(static_cast<std::size_t>(V), 0.0);
      bound_head(contract, data, token, final);
      for (std::int64_t t = 0; t < sequence.length; ++t)
        result.token[static_cast<std::size_t>((sequence.first + t) * HV + head)] = token[static_cast<std::size_t>(t)];
      // an element of the state errs by no more than its column
      const double largest_column = *std::max_element(final.begin(), final.end());
      for (std::int64_t c = 0; c < K; ++c)
        result.state_row[static_cast<std::size_t>((sequence.index * HV + head) * K + c)] = largest_column;
    }
  return result;
}

} // namespace kdacheck
