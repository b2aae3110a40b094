// Running error bound of the general recurrence S_t = (D_t - a_t b_t^T) S_{t-1} + k_t v_t^T, column by column of the state, in the
// notation of proved_recurrence.cpp. With exact state s, computed state s + e, |e| <= rho, one token makes at most
//
//   read       w^ = b . s^                |w^ - b . s^| <= dw = ((1 + gamma) (1 + u_p)^2 (1 + t_b) - 1) |b| |s^|
//   decay      d^ = a^ (.) s^             E as in proved_recurrence.cpp
//   erase      a w^                       ((1 + t_a) (1 + u_p)^2 (1 + u) - 1) |a| |w^|, and |a| dw
//   write      k v                        ((1 + t_k) (1 + u_p)^2 (1 + u) - 1) |k| |v|
//   sum        three terms in any order   gamma_3 (|d^| + |a| |w^| + |k| |v|), theirs with their errors
//   rho' = |D - a b^T| rho + E + all these + u_s (|s'| + what precedes)
//   |o^ - o| <= |scale q| (1 + t_q) rho' + ((1 + gamma) (1 + u_p)^2 (1 + t_q) (1 + u)^4 - 1) |scale q| (|s'| + rho')
//
// The norm of a step is that of proved_general.cpp, 1; t_a, t_b, t_k, t_q bound what a, b, k, q themselves err by. KDA is a = beta k,
// b = alpha k, key beta k, each with its own rounding.

#include "../cases/portable_math.hpp"
#include "proved_recurrence.hpp"
#include "proved_solve.hpp"
#include "proved_starts.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

/// One token's rows and by how much, relative to their size, they may err.
struct Step {
  std::vector<double> a, b, k, alpha, decay_error; ///< [K]; decay_error is relative
  double of_a = 0, of_b = 0, of_k = 0, of_q = 0;
  double a_norm = 0, b_norm = 0, k_norm = 0, q_norm = 0;
  double largest_alpha = 0, largest_error = 0; ///< largest alpha; largest alpha times its error
  double norm = 0;                             ///< of D - a b^T
};

void read_step(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t t, Step& step) {
  constexpr double u = ProvedUnits::single;
  const std::int64_t K = head.K;
  const double theta = head.normalised ? (1 + units.norm(K)) * (1 + units.operand.unit) - 1 : 0, root = std::sqrt(static_cast<double>(K));
  const auto of_row = [&](double norm, double decay = 1) { return theta + (head.normalised ? units.small_row(norm, decay * root) : 0); };
  const auto at = static_cast<std::size_t>(t);
  for (auto* row : {&step.a, &step.b, &step.k, &step.alpha, &step.decay_error}) row->resize(static_cast<std::size_t>(K));
  step.largest_alpha = step.largest_error = 0;
  double of_alpha = 0, query_square = 0;
  for (std::int64_t c = 0; c < K; ++c) {
    const auto entry = static_cast<std::size_t>(t * K + c), channel = static_cast<std::size_t>(c);
    const double g = head.g[entry], alpha = portable::exp(g), k = head.k[entry];
    const double log_error = ProvedUnits::second_order * (head.gate_error[entry] + ProvedUnits::argument * std::abs(g)) + gate_floor;
    const double of_exponential = portable::expm1(log_error + portable::log1p(units.exponential));
    step.alpha[channel] = alpha, step.decay_error[channel] = of_exponential + 2 * u;
    step.largest_alpha = std::max(step.largest_alpha, alpha);
    step.largest_error = std::max(step.largest_error, alpha * (of_exponential + 2 * u));
    of_alpha = std::max(of_alpha, of_exponential);
    query_square += head.q[entry] * head.q[entry];
    step.k[channel] = head.dplr ? k : head.beta[at] * k;
    step.a[channel] = head.dplr ? head.a[entry] : head.beta[at] * k;
    step.b[channel] = head.dplr ? head.b[entry] : alpha * k;
  }
  step.a_norm = norm_of(step.a.data(), K), step.b_norm = norm_of(step.b.data(), K), step.k_norm = norm_of(step.k.data(), K);
  step.q_norm = std::abs(head.scale) * std::sqrt(query_square);
  const double of_key = of_row(norm_of(head.k.data() + t * K, K)),
               of_written = (1 + of_key) * (1 + u) * (1 + (head.dplr ? 0 : head.beta_error[at])) - 1;
  step.of_q = of_row(std::sqrt(query_square));
  step.of_k = head.dplr ? of_key : of_written, step.of_a = head.dplr ? 0 : of_written;
  step.of_b = head.dplr ? 0 : (1 + of_row(step.b_norm, step.largest_alpha)) * (1 + u) * (1 + of_alpha) - 1;
  double decayed = 0, decayed_read = 0;
  for (std::int64_t c = 0; c < K; ++c) {
    const auto channel = static_cast<std::size_t>(c);
    const double x = step.alpha[channel] * step.a[channel];
    decayed += x * x, decayed_read += x * step.b[channel];
  }
  const double aa = step.a_norm * step.a_norm, bb = step.b_norm * step.b_norm, trace = aa * bb - 2 * decayed_read;
  const double determinant = std::max(0.0, decayed * bb - decayed_read * decayed_read);
  const double eigenvalue = 0.5 * (trace + std::sqrt(trace * trace + 4 * determinant));
  step.norm = std::sqrt(step.largest_alpha * step.largest_alpha + std::max(0.0, eigenvalue));
}

} // namespace

void bound_general_recurrence(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t interval, double* token,
                              double* row, double* columns, const ChunkStarts* from) {
  constexpr double u = ProvedUnits::single, infinity = std::numeric_limits<double>::infinity();
  const std::int64_t K = head.K, V = head.V;
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  const double operand = (1 + units.operand.unit) * (1 + units.operand.unit), root = std::sqrt(static_cast<double>(K));
  const double summed = 1 + units.gamma(K + 1), added = units.gamma(3);
  std::vector<double> state = head.state, rho = error_of_stored_start(units, head), size(at(V)), read(size), of_decay(size);
  for (std::int64_t c = 0; c < K; ++c)
    for (std::int64_t j = 0; j < V; ++j) size[at(j)] += state[at(c * V + j)] * state[at(c * V + j)];
  for (double& x : size) x = std::sqrt(x);
  Step step;
  if (columns) std::copy(rho.begin(), rho.end(), columns);
  for (std::int64_t t = 0; t < head.tokens; ++t) {
    if (from) go_on_from(*from, t, rho);
    read_step(units, head, gate_floor, t, step);
    std::vector<double> decayed(at(V), 0.0);
    std::fill(read.begin(), read.end(), 0.0), std::fill(of_decay.begin(), of_decay.end(), 0.0);
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) {
        double& s = state[at(c * V + j)];
        read[at(j)] += step.b[at(c)] * s;
        s *= step.alpha[at(c)];
        decayed[at(j)] += s * s;
        of_decay[at(j)] += step.decay_error[at(c)] * step.decay_error[at(c)] * s * s;
      }
    std::vector<double> next(at(V), 0.0);
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) {
        double& s = state[at(c * V + j)];
        s += step.k[at(c)] * head.v[at(t * V + j)] - step.a[at(c)] * read[at(j)];
        next[at(j)] += s * s;
      }
    const bool stored = (t + 1) % interval == 0 || t + 1 == head.tokens;
    const Elementary kept = stored ? units.state : Elementary{u, 0x1p-126, largest(Format::fp32)};
    const double flush = units.operand.flush;
    double worst = 0;
    for (std::int64_t j = 0; j < V; ++j) {
      const double old = size[at(j)] + rho[at(j)], v = std::abs(head.v[at(t * V + j)]);
      const double flushed_read = 2 * flush * (root * (old + step.b_norm) + static_cast<double>(K) + 4);
      const double of_read = (summed * operand * (1 + step.of_b) - 1) * step.b_norm * old + flushed_read;
      const double w = std::abs(read[at(j)]) + step.b_norm * rho[at(j)] + of_read;
      const double decay = std::sqrt(of_decay[at(j)]) + step.largest_error * rho[at(j)];
      const double erased = step.a_norm * w * ((1 + step.of_a) * operand * (1 + u)),
                   written = step.k_norm * v * (1 + step.of_k) * operand * (1 + u);
      const double terms = std::sqrt(decayed[at(j)]) + step.largest_alpha * rho[at(j)] + decay + erased + written;
      const double flushed = 2 * flush * (root * (w + v + 4) + step.a_norm + step.k_norm + old) * (1 + step.a_norm);
      const double local = step.a_norm * of_read + decay + step.a_norm * w * ((1 + step.of_a) * operand * (1 + u) - 1) +
                           step.k_norm * v * ((1 + step.of_k) * operand * (1 + u) - 1) + added * terms + flushed;
      const double before = step.norm * rho[at(j)] + local, after = std::sqrt(next[at(j)]) + before;
      const bool fits = std::max({old, w, v, terms, step.a_norm, step.b_norm, step.k_norm}) <= units.operand.limit && after <= kept.limit;
      rho[at(j)] = fits ? sane((before + kept.unit * after + root * kept.flush) * ProvedUnits::up) : infinity;
      size[at(j)] = std::sqrt(next[at(j)]);
      const double seen = step.q_norm * ((1 + step.of_q) * rho[at(j)] +
                                         (summed * operand * (1 + step.of_q) * (1 + 4.1 * u) - 1) * (size[at(j)] + rho[at(j)]));
      const double lost = 2 * flush * (root * (size[at(j)] + rho[at(j)] + step.q_norm) + static_cast<double>(K) + 4);
      worst = std::max(worst, sane((seen + lost) * ProvedUnits::up));
    }
    token[t] = std::max(token[t], worst);
    if (columns) std::copy(rho.begin(), rho.end(), columns + (t + 1) * V);
  }
  const double largest_column = rho.empty() ? 0.0 : *std::max_element(rho.begin(), rho.end());
  for (std::int64_t c = 0; c < K; ++c) row[c] = std::max(row[c], largest_column); // an element errs by no more than its column
}

} // namespace kdacheck
