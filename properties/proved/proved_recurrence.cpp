// Running error bound of the token recurrence, column by column of the state. With exact state s, computed state s + e,
// |e| <= rho, u the unit roundoff of fp32, u_p that of an operand and gamma that of sums (proved_units.hpp), one token makes at most
//
//   decay      d^ = a^ (.) s^        |d^ - D s| <= a_max rho + E,  E = |(eta + 2u) (.) D s| + max(a (eta + 2u)) rho
//              eta_c: error of exp and of the log decay of channel c
//   readback   p^ = k . d^           |p^ - k . d^| <= r kappa |d^|, r = gamma + 2 u_p, and the sum may start from v: + gamma |v|
//   write      c^ = b (v - p^)       relative error 3u + error of beta
//   new state  s' = d^ + k c^        (2u + 2 u_p) kappa |c^| + u_s |s'|, u_s the stored state's
//   rho' = n_P (a_max rho + E) + |b| kappa (r kappa |d^| + gamma |v|) + kappa |c^| (5u + 2 u_p + error of beta) + u_s (|d^| + kappa |c^|)
//   |o^ - o| <= |scale| |q| (rho' + (r + 4u) (|d^| + kappa |c^|))
//
// where n_P = max(1, |1 - b kappa^2|) is the norm of I - b k k^T and kappa = |k|. A norm formed inside the kernel moves k
// and q by a relative theta: k enters twice in I - b k k^T; in fp16 by sqrt(K) 2^-25 / |k| more, though by no more than |k|. Second-order
// terms lie inside the factors 1.01 (units up to 2^-8 are taken at 1.01 of themselves). Every operation may flush.

#include "proved_recurrence.hpp"

#include "../cases/portable_math.hpp"
#include "proved_starts.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {

std::vector<double> error_of_stored_start(const ProvedUnits& units, const Head& head) {
  std::vector<double> error(static_cast<std::size_t>(head.V), 0.0);
  if (!(units.state.unit > ProvedUnits::single)) return error;
  for (std::int64_t j = 0; j < head.V; ++j) {
    double square = 0;
    for (std::int64_t c = 0; c < head.K; ++c) {
      const double s = head.state[static_cast<std::size_t>(c * head.V + j)];
      square += s * s;
    }
    error[static_cast<std::size_t>(j)] = units.state.error(std::sqrt(square)) + std::sqrt(static_cast<double>(head.K)) * units.state.flush;
  }
  return error;
}

void bound_recurrence(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t interval, double* token, double* row,
                      double* columns, const ChunkStarts* from) {
  constexpr double u = ProvedUnits::single, infinity = std::numeric_limits<double>::infinity();
  const std::int64_t K = head.K, V = head.V;
  const double operand = 2.02 * units.operand.unit, gamma = units.gamma(K + 1), read_unit = (1 + gamma) * (1 + operand) - 1;
  const double theta = head.normalised ? (1 + units.norm(K)) * (1 + units.operand.unit) - 1 : 0, root = std::sqrt(static_cast<double>(K));
  const auto of_row = [&](double square) { return theta + (head.normalised ? units.small_row(std::sqrt(square), root) : 0); };
  const auto sane = [](double x) { return x <= 0x1p100 ? x : infinity; }; // beyond it something may overflow; NaN is not known
  std::vector<double> state = head.state, decayed(static_cast<std::size_t>(V)), scaled(decayed), dot(decayed),
                      rho = error_of_stored_start(units, head);
  if (columns) std::copy(rho.begin(), rho.end(), columns);
  for (std::int64_t t = 0; t < head.tokens; ++t) {
    if (from) go_on_from(*from, t, rho);
    std::fill(decayed.begin(), decayed.end(), 0.0), std::fill(scaled.begin(), scaled.end(), 0.0), std::fill(dot.begin(), dot.end(), 0.0);
    double largest_decay = 0, largest_error = 0, key_square = 0, query_square = 0;
    for (std::int64_t c = 0; c < K; ++c) {
      const auto entry = static_cast<std::size_t>(t * K + c);
      const double alpha = portable::exp(head.g[entry]), k = head.k[entry];
      const double log_error =
          ProvedUnits::second_order * (head.gate_error[entry] + ProvedUnits::argument * std::abs(head.g[entry])) + gate_floor;
      const double eta = portable::expm1(log_error + portable::log1p(units.exponential)) + 2 * u;
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
    const double theta_k = of_row(key_square), theta_q = of_row(query_square);
    const double kappa = std::sqrt(key_square) * (1 + theta_k), norm = std::max(1.0, std::abs(1 - beta * key_square));
    const double query = std::abs(head.scale) * std::sqrt(query_square) * (1 + theta_q);
    const bool stored = (t + 1) % interval == 0 || t + 1 == head.tokens;
    const double of_state = stored ? std::max(u, units.state.unit) : u;
    double worst = 0;
    for (std::int64_t j = 0; j < V; ++j) {
      const auto column = static_cast<std::size_t>(j);
      const double v = head.v[static_cast<std::size_t>(t * V + j)], exact = beta * (v - dot[column]);
      const double error = largest_decay * rho[column] + std::sqrt(scaled[column]) + largest_error * rho[column];
      const double size = std::sqrt(decayed[column]) + error; // of d^
      const double flush = std::max(units.operand.flush, stored ? units.state.flush : 0.0) *
                           (root * (size + kappa + std::abs(v)) + static_cast<double>(K + 4)) * (1 + kappa);
      const double read = read_unit * kappa * size + gamma * std::abs(v) + 2.1 * theta_k * kappa * size;
      const double write =
          (std::abs(exact) + std::abs(beta) * (kappa * error + read)) * (1 + 4 * u + of_beta) + units.operand.flush; // of c^
      const double grown = size + kappa * write;                                                                     // of s'
      const bool fits = std::max(size, write) <= units.operand.limit && grown <= units.state.limit && kappa <= units.operand.limit;
      rho[column] = (norm * error + std::abs(beta) * kappa * read + kappa * write * (5 * u + operand + of_beta + 1.01 * theta_k) +
                     of_state * grown * 1.01 + flush * (1 + std::abs(beta) * kappa)) *
                    ProvedUnits::up;
      rho[column] = fits ? sane(rho[column]) : infinity;
      worst =
          std::max(worst, sane((query * (rho[column] + (read_unit + 4 * u + theta_q) * grown) + flush * (1 + query)) * ProvedUnits::up));
      for (std::int64_t c = 0; c < K; ++c)
        state[static_cast<std::size_t>(c * V + j)] += head.k[static_cast<std::size_t>(t * K + c)] * exact;
    }
    token[t] = std::max(token[t], worst);
    if (columns) std::copy(rho.begin(), rho.end(), columns + (t + 1) * V);
  }
  const double largest_column = rho.empty() ? 0.0 : *std::max_element(rho.begin(), rho.end());
  for (std::int64_t c = 0; c < K; ++c) row[c] = std::max(row[c], largest_column); // an element errs by no more than its column
}

} // namespace kdacheck
