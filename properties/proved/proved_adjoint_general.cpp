// The general rule, KDA through it, and what fp16 loses: derived in proved_adjoint.cpp.

#include "proved_token_adjoint.hpp"

namespace kdacheck {
namespace {

/// KDA as the general rule: a = beta k, b = alpha k, key beta k.
Head as_general(const Head& kda) {
  Head head = kda;
  head.dplr = true;
  head.a.resize(kda.k.size()), head.b = head.a;
  for (std::size_t i = 0; i < kda.k.size(); ++i) {
    head.k[i] = head.a[i] = kda.beta[i / static_cast<std::size_t>(kda.K)] * kda.k[i];
    head.b[i] = portable::exp(kda.g[i]) * kda.k[i];
  }
  return head;
}

} // namespace

void TokenAdjoint::lose_small(std::int64_t t, const std::vector<double>& d_o, const std::vector<double>& after, AdjointBound& out) {
  double sums = inner_sum_, largest = std::max({inner_largest_, key_norm_, query_norm_, a_norm_, b_norm_});
  const auto count = [&](double size) { sums += size, largest = std::max(largest, size); };
  for (std::int64_t j = 0; j < V_; ++j) {
    count(size_[at(j)] + lambda_error_[at(j)]), count(old_[at(j)] + state_error_[at(j)]), count(decayed_[at(j)] + decayed_error_[at(j)]);
    count(column_norm(after, j) + rho_[at((t + 1) * V_ + j)]), count(std::abs(head_.v[at(t * V_ + j)]));
    count(column_norm(adjoint_, j) + epsilon_[at(j)]);
    if (!d_o.empty()) count(std::abs(d_o[at(t * V_ + j)]));
  }
  const bool fits = largest <= std::min({units_.operand.limit, units_.state.limit, units_.gradient_state.limit});
  const double strength = std::abs((kda_ ? *kda_ : head_).beta.empty() ? 1.0 : (kda_ ? *kda_ : head_).beta[at(t)]);
  const double factor = (1 + strength) * (1 + std::abs(head_.scale)) * (1 + key_norm_ + a_norm_ + b_norm_ + query_norm_) * root_;
  const double flush = std::max({flush_, units_.state.flush, units_.gradient_state.flush});
  const double lost = fits ? 4 * flush * factor * (1 + sums) : std::numeric_limits<double>::infinity();
  lost_ = lost;
  for (double& epsilon : epsilon_) epsilon += lost;
  for (auto* rows : {&out.q, &out.k, &out.g, &out.a, &out.b})
    for (std::int64_t c = 0; c < K_ && !rows->empty(); ++c) (*rows)[at(t * K_ + c)] += lost;
  out.v[at(t)] += lost, out.beta[at(t)] += lost * root_;
}

void TokenAdjoint::read_row_errors(std::int64_t t) {
  of_a_ = (1 + theta_) * (1 + u) * (1 + kda_->beta_error[at(t)]) - 1;
  of_alpha_.resize(at(K_)), own_error_.resize(at(K_)), own_size_.resize(at(K_));
  b_error_.assign(at(K_), 0.0);
  double of_b = 0;
  for (std::int64_t c = 0; c < K_; ++c) {
    of_alpha_[at(c)] = (1 + of_norm_) * (1 + u) * (1 + decay_error_[at(c)]) - 1;
    b_error_[at(c)] = (1 + of_element(kda_->k[at(t * K_ + c)])) * (1 + u) * (1 + decay_error_[at(c)]) - 1;
    of_b += square(b_error_[at(c)] * head_.b[at(t * K_ + c)]);
  }
  of_b_ = b_norm_ > 0 ? std::sqrt(of_b) / b_norm_ : 0;
}

void TokenAdjoint::retreat_general(std::int64_t t, const std::vector<double>& before, AdjointBound& out) {
  const double kappa = key_norm_ * (1 + theta_) * (1 + of_a_), of_sum = (1 + over_V_) * (1 + 2.1 * u) - 1;
  const double of_product = with_row(operand_ * (1 + 3.1 * u) - 1, of_b_);
  const double over_a = with_row(over_K_, of_a_), over_b = with_row(over_K_, of_b_);
  double strength = 0, strength_error = 0;
  std::vector<double> p(at(V_)), m(p), pi(p), mu(p), own(p);
  inner_sum_ = inner_largest_ = 0;
  double with_v = 0, with_p = 0, with_m = 0;
  for (std::int64_t j = 0; j < V_; ++j) {
    double read = 0, held = 0;
    for (std::int64_t c = 0; c < K_; ++c)
      read += head_.b[at(t * K_ + c)] * before[at(c * V_ + j)], held += head_.a[at(t * K_ + c)] * adjoint_[at(c * V_ + j)];
    const double v = std::abs(head_.v[at(t * V_ + j)]), epsilon = lambda_error_[at(j)], lambda = size_[at(j)] + epsilon;
    const double old = old_[at(j)] + state_error_[at(j)];
    const double lost = 2 * flush_ * (root_ * (lambda + old + a_norm_ + b_norm_ + kappa) + static_cast<double>(K_) + 4);
    p[at(j)] = read, m[at(j)] = held;
    pi[at(j)] = b_norm_ * state_error_[at(j)] + over_b * b_norm_ * old + lost;
    const double of_m = over_a * a_norm_ * lambda + lost;
    mu[at(j)] = a_norm_ * epsilon + of_m;
    const double m_size = std::abs(held) + mu[at(j)], p_size = std::abs(read) + pi[at(j)];
    count_inner({p_size, m_size, b_norm_ * m_size, kappa * lambda});
    out.v[at(t)] = std::max(out.v[at(t)], kappa * epsilon + (over_a + theta_) * kappa * lambda + lost);
    with_v += epsilon * v, with_p += epsilon * p_size, with_m += state_error_[at(j)] * m_size;
    own[at(j)] = b_norm_ * of_m + of_product * b_norm_ * m_size + largest_error_ * lambda +
                 added_ * ((largest_alpha_ + largest_error_) * lambda + b_norm_ * m_size * (1 + of_product)) +
                 step_norm_ * (epsilon - epsilon_[at(j)]) + lost;
  }
  std::vector<double> sent_square(at(V_), 0.0);
  for (std::int64_t c = 0; c < K_; ++c) {
    const std::size_t entry = at(t * K_ + c);
    const double of_direct = (1 + over_V_) * (1 + decay_error_[at(c)]) * (1 + kept_unit()) * (1 + 2.1 * u) - 1, b = head_.b[entry];
    double k_exact = 0, k_terms = 0, a_own = 0, a_terms = 0, b_own = 0, b_terms = 0, g_exact = 0, g_error = 0, g_terms = 0;
    double a_exact = 0, b_exact = 0;
    for (std::int64_t j = 0; j < V_; ++j) {
      double& lambda = adjoint_[at(c * V_ + j)];
      const double s = before[at(c * V_ + j)], x = alpha_[at(c)] * s, v = head_.v[at(t * V_ + j)];
      const double lambda_size = std::abs(lambda) + lambda_error_[at(j)], x_size = std::abs(x) + decayed_error_[at(j)];
      k_exact += lambda * v, k_terms += lambda_size * std::abs(v);
      a_own += std::abs(lambda) * pi[at(j)], a_terms += lambda_size * (std::abs(p[at(j)]) + pi[at(j)]);
      b_own += std::abs(s) * mu[at(j)], b_terms += (std::abs(s) + state_error_[at(j)]) * (std::abs(m[at(j)]) + mu[at(j)]);
      a_exact -= lambda * p[at(j)], b_exact -= s * m[at(j)];
      g_exact += x * lambda, g_error += decayed_error_[at(j)] * lambda_size + std::abs(x) * lambda_error_[at(j)];
      g_terms += x_size * lambda_size;
      lambda = alpha_[at(c)] * lambda - b * m[at(j)];
      sent_square[at(j)] += square(lambda);
    }
    out.k_size[entry] = std::abs(k_exact), out.g_size[entry] = std::abs(g_exact);
    const double k_error = with_v + of_sum * k_terms + flushed(k_terms), a_error = with_p + a_own + of_sum * a_terms + flushed(a_terms),
                 b_error = with_m + b_own + of_sum * b_terms + flushed(b_terms);
    out.k[entry] = k_error;
    if (!kda_) out.a[entry] = a_error, out.b[entry] = b_error;
    out.g[entry] = g_error + of_direct * g_terms + flushed(g_terms);
    if (units_.decay_sums) {
      const double q = head_.q[entry], of_key = of_element((kda_ ? *kda_ : head_).k[entry]);
      terms_.push_back({c, q, out.q[entry], out.q_size[entry] + out.q[entry], of_element(q), false});
      terms_.push_back({c, head_.a[entry], a_error, (1 + of_sum) * a_terms, with_row(of_key, of_a_), false});
      terms_.push_back({c, head_.k[entry], k_error, (1 + of_sum) * k_terms, with_row(of_key, of_a_), false});
      terms_.push_back({c, b, b_error, (1 + of_sum) * b_terms, with_row(of_norm_, kda_ ? b_error_[at(c)] : 0), true});
    }
    if (!kda_) continue;
    const double beta = kda_->beta[at(t)], key = kda_->k[entry], alpha = alpha_[at(c)], written = k_exact + a_exact;
    const double of_beta = (1 + kda_->beta_error[at(t)]) * (1 + 4.1 * u) - 1, of_b = (1 + b_error_[at(c)]) * (1 + 4.1 * u) - 1,
                 of_alpha = (1 + of_alpha_[at(c)]) * (1 + 4.1 * u) - 1;
    const double sizes = (1 + of_sum) * (k_terms + a_terms), b_size = (1 + of_sum) * b_terms;
    out.k_size[entry] = std::abs(beta * written + alpha * b_exact);
    out.k[entry] = std::abs(beta) * (k_error + a_error + of_beta * (sizes + k_error + a_error)) +
                   alpha * (b_error + of_alpha * (b_size + b_error)) + flushed(sizes + b_size);
    out.g_size[entry] = std::abs(g_exact + b * b_exact);
    own_error_[at(c)] = std::abs(b) * (b_error + of_b * (b_size + b_error)), own_size_[at(c)] = std::abs(g_exact);
    out.g[entry] += own_error_[at(c)] + 3.1 * u * (own_size_[at(c)] + out.g[entry]);
    strength += key * written;
    strength_error += std::abs(key) * (k_error + a_error + (of_element(key) + units_.gamma(K_ + 2)) * (sizes + k_error + a_error));
  }
  if (kda_) out.beta_size[at(t)] = std::abs(strength), out.beta[at(t)] = strength_error + flushed(1);
  for (std::int64_t j = 0; j < V_; ++j) {
    const double reached = step_norm_ * epsilon_[at(j)] + own[at(j)];
    epsilon_[at(j)] = reached + kept_unit() * (std::sqrt(sent_square[at(j)]) + reached) + root_ * std::max(0x1p-126, units_.state.flush);
  }
}

AdjointBound bound_adjoint_through_general(const ProvedUnits& units, const Head& kda, double gate_floor, std::int64_t interval,
                                           const std::vector<double>& d_o, const std::vector<double>& d_state,
                                           const std::vector<double>* states) {
  const Head head = as_general(kda);
  return TokenAdjoint(units, head, gate_floor, interval, &kda).run(d_o, d_state, states);
}

} // namespace kdacheck
