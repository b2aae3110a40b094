// Running error bound of the reverse mode of the token recurrence, column by column of the state and its cotangent, in the notation of
// proved_recurrence.cpp. S_{t-1}, S_t err by rho (that file, or proved_general_recurrence.cpp). Lambda is the cotangent of S_t,
// |Lambda^ - Lambda| <= epsilon; R = (1 + gamma_{K+1}) (1 + u_p)^2 (1 + theta) - 1 bounds a sum over K, R_V the same over V; a stored
// state or cotangent may be read in the format of `gradient_state`, u_g. Sizes carry their errors: |x|^ = |x| + dx.
//
//   receive  Lambda += q do^T         epsilon += ((1 + theta) (1 + u_p)^2 (1 + u)^3 - 1) |q| |do| + gamma_3 (|Lambda| + |q| |do|)
//   dq_c     sum_j S_cj do_j          sum rho |do| + R_V sum |S_cj|^ |do|
//
// KDA, with X = D S_{t-1}, w = v - X^T k, m = Lambda^T k, Y = Lambda - b k m^T:
//   X        xi = a_max rho + E (proved_recurrence.cpp)         w   omega = kappa xi + R kappa |X|^ + gamma |v|
//   m        mu = kappa epsilon + R kappa |Lambda|^              dv  b m: |b| mu + (error of b, 2u, u_p) |b| |m|^
//   dbeta    sum m w: sum mu |w|^ + |m| omega + R_V sum |m|^ |w|^
//   dk_c     b sum (Lambda_cj w_j - X_cj m_j): |b| sum (epsilon |w|^ + |Lambda_cj| omega + xi |m|^ + |X_cj| mu) + R_V and b's of all four
//   Y        y = n_P epsilon + |b| kappa R kappa |Lambda|^ + (error of the product) |b| kappa |m|^ + gamma_3 of both terms
//   dg_c     sum_j X_cj Y_cj: sum xi |Y_cj|^ + |X_cj| y + (R_V, and eta + 2u, u_s where S_{t-1} meets the next Lambda instead) sum |X_cj|^
//   |Y_cj|^ Lambda'  D Y: epsilon' = |(I - b k k^T) D| epsilon + a_max (y's own part) + max a (eta + 2u) |Y|^ + u_s |D Y|^
//
// DPLR, with p = S_{t-1}^T b, m = Lambda^T a:
//   dv = k Lambda, dk_c = sum Lambda_cj v_j, da_c = - sum Lambda_cj p_j, db_c = - sum S_cj m_j, dg_c = sum X_cj Lambda_cj
//   Lambda'  D Lambda - b m^T: |D - a b^T| epsilon + |b| R |a| |Lambda|^ + (error of the product) |b| |m|^ + max a (eta + 2u) |Lambda|^ ...
//
// KDA through it (a = beta k, b = alpha k, key beta k, which err by t_a and, column by column, by t_b |b|):
//   dk = beta (da + dk) + alpha db     dbeta = sum k (da + dk)     dg: alpha k db of the token itself besides
//
// decay_gradient=sums: dg is a running sum (recurrence_adjoint_run.hpp): rows of S . dS of the last state, + q dq - k b (Lambda w + X m) of
// each token (DPLR: q dq - a da - k dk, and b db afterwards), whose terms err by what is said above of dq and of both parts of dk,
//   dg_c     sum over the terms so far of |row| (d of it, theta, 3u) + gamma of 5 a token times the sum of their sizes, in any order;
//   d of it holds what fp16 took from it, a row's element errs by min(1, 2^-25 / |q_c|) if fp16 rounded it after its norm.
//
// fp16 rounds what is small by 2^-25 at most: a row that is normalised inside errs by sqrt(K) 2^-25 more (ProvedUnits::small_row), a sum of
// products x y errs besides by that times sum |x| + |y|; nothing is known where a number may exceed 65504 (lose_small).
//
// Exact values are computed in fp64; `up` covers what they err by, as in the other bounds. Whatever the order of sums.

#include "proved_token_adjoint.hpp"

namespace kdacheck {
namespace {

constexpr std::int64_t segment = 64; ///< tokens between two kept states

} // namespace

AdjointBound TokenAdjoint::run(const std::vector<double>& d_o, const std::vector<double>& d_state, const std::vector<double>* states) {
  keep_states(states);
  AdjointBound out;
  const std::int64_t T = head_.tokens;
  for (auto* rows : {&out.q, &out.k, &out.g, &out.q_size, &out.k_size, &out.g_size}) rows->assign(at(T * K_), 0.0);
  if (head_.dplr && !kda_)
    for (auto* rows : {&out.a, &out.b}) rows->assign(at(T * K_), 0.0);
  for (auto* rows : {&out.v, &out.beta, &out.beta_size}) rows->assign(at(T), 0.0);
  adjoint_ = d_state.empty() ? std::vector<double>(at(K_ * V_), 0.0) : d_state;
  epsilon_.assign(at(V_), 0.0);
  for (std::int64_t j = 0; j < V_; ++j) // one kept in a coarse format may be rounded before the last token
    epsilon_[at(j)] = (coarse_state() ? units_.state.unit : 0) * column_norm(adjoint_, j) + root_ * units_.state.flush;
  if (units_.decay_sums && T > 0) start_sums();
  for (std::int64_t t = T - 1; t >= 0; --t) retreat(t, d_o, out);
  const double largest = epsilon_.empty() ? 0.0 : *std::max_element(epsilon_.begin(), epsilon_.end());
  out.state.assign(at(K_), largest);
  return out;
}

void TokenAdjoint::advance(std::int64_t t, std::vector<double>& S) {
  alpha_.resize(at(K_));
  for (std::int64_t c = 0; c < K_; ++c) alpha_[at(c)] = portable::exp(head_.g[at(t * K_ + c)]);
  for (std::int64_t j = 0; j < V_; ++j) {
    double read = 0;
    for (std::int64_t c = 0; c < K_; ++c) {
      const std::size_t entry = at(t * K_ + c);
      read += head_.dplr ? head_.b[entry] * S[at(c * V_ + j)] : head_.k[entry] * alpha_[at(c)] * S[at(c * V_ + j)];
    }
    const double v = head_.v[at(t * V_ + j)], written = head_.dplr ? v : head_.beta[at(t)] * (v - read);
    for (std::int64_t c = 0; c < K_; ++c) {
      const std::size_t entry = at(t * K_ + c);
      double& s = S[at(c * V_ + j)];
      s = alpha_[at(c)] * s + head_.k[entry] * written - (head_.dplr ? head_.a[entry] * read : 0);
    }
  }
}

void TokenAdjoint::keep_states(const std::vector<double>* states) {
  rho_.assign(at((head_.tokens + 1) * V_), 0.0);
  std::vector<double> token(at(head_.tokens)), row(at(K_));
  const auto bound = head_.dplr ? bound_general_recurrence : bound_recurrence;
  if (states)
    rho_ = *states;
  else
    bound(units_, kda_ ? *kda_ : head_, gate_floor_, interval_, token.data(), row.data(), rho_.data(), nullptr);
  for (double& rho : rho_) rho = sane(rho);
  std::vector<double> S = head_.state;
  for (std::int64_t t = 0; t < head_.tokens; ++t) {
    if (t % segment == 0) kept_.push_back(S);
    advance(t, S);
  }
}

void TokenAdjoint::find_states(std::int64_t t) {
  const std::int64_t first = t / segment * segment;
  if (first != first_ || states_.empty()) {
    first_ = first;
    states_.assign(1, kept_[at(first / segment)]);
    for (std::int64_t i = first; i < std::min(first + segment, head_.tokens); ++i) {
      states_.push_back(states_.back());
      advance(i, states_.back());
    }
  }
}

void TokenAdjoint::retreat(std::int64_t t, const std::vector<double>& d_o, AdjointBound& out) {
  find_states(t);
  read_token(t);
  const std::vector<double>&before = states_[at(t - first_)], &after = states_[at(t - first_ + 1)];
  if (!d_o.empty()) receive(t, d_o, after, out);
  for (auto* rows : {&size_, &old_, &decayed_, &of_decay_}) rows->assign(at(V_), 0.0);
  for (std::int64_t c = 0; c < K_; ++c)
    for (std::int64_t j = 0; j < V_; ++j) {
      const double s = before[at(c * V_ + j)], x = alpha_[at(c)] * s;
      size_[at(j)] += square(adjoint_[at(c * V_ + j)]), old_[at(j)] += square(s), decayed_[at(j)] += square(x),
          of_decay_[at(j)] += square(decay_error_[at(c)] * x);
    }
  for (auto* rows : {&size_, &old_, &decayed_, &of_decay_})
    for (double& x : *rows) x = std::sqrt(x);
  // errors of Lambda, S_{t-1} and X as they are read
  lambda_error_.assign(at(V_), 0.0), state_error_ = decayed_error_ = lambda_error_;
  for (std::int64_t j = 0; j < V_; ++j) {
    const double rho = rho_[at(t * V_ + j)];
    lambda_error_[at(j)] = epsilon_[at(j)] + as_read(size_[at(j)] + epsilon_[at(j)]);
    state_error_[at(j)] = rho + as_read(old_[at(j)] + rho);
    decayed_error_[at(j)] = (largest_alpha_ + largest_error_) * state_error_[at(j)] + of_decay_[at(j)] + root_ * 0x1p-126 +
                            as_read(decayed_[at(j)] + (largest_alpha_ + largest_error_) * rho + of_decay_[at(j)]);
  }
  if (head_.dplr)
    retreat_general(t, before, out);
  else
    retreat_kda(t, before, out);
  lost_ = 0;
  if (small_numbers()) lose_small(t, d_o, after, out);
  if (units_.decay_sums) finish_sums(t, out);
  for (double& epsilon : epsilon_) epsilon = sane(epsilon * ProvedUnits::up);
  for (auto* rows : {&out.q, &out.k, &out.g, &out.a, &out.b})
    if (!rows->empty())
      for (std::int64_t c = 0; c < K_; ++c) (*rows)[at(t * K_ + c)] = sane((*rows)[at(t * K_ + c)] * ProvedUnits::up);
  out.v[at(t)] = sane(out.v[at(t)] * ProvedUnits::up), out.beta[at(t)] = sane(out.beta[at(t)] * ProvedUnits::up);
}

void TokenAdjoint::start_sums() {
  find_states(head_.tokens - 1);
  sum_error_.assign(at(K_), 0.0), sum_size_ = sum_error_;
  for (std::int64_t j = 0; j < V_; ++j) {
    const double rho = rho_[at(head_.tokens * V_ + j)], of_state = rho + as_read(column_norm(states_.back(), j) + rho);
    const double of_adjoint = epsilon_[at(j)] + as_read(column_norm(adjoint_, j) + epsilon_[at(j)]);
    for (std::int64_t c = 0; c < K_; ++c) {
      const double s = std::abs(states_.back()[at(c * V_ + j)]), lambda = std::abs(adjoint_[at(c * V_ + j)]);
      const double size = (s + of_state) * (lambda + of_adjoint);
      sum_error_[at(c)] += of_state * (lambda + of_adjoint) + s * of_adjoint + over_V_ * size;
      sum_size_[at(c)] += (1 + over_V_) * size;
      if (!small_numbers()) continue;
      const bool fits = std::max(s + of_state, lambda + of_adjoint) <= units_.operand.limit;
      sum_error_[at(c)] += fits ? 4 * flush_ * (1 + s + of_state + lambda + of_adjoint) : std::numeric_limits<double>::infinity();
    }
  }
}

void TokenAdjoint::finish_sums(std::int64_t t, AdjointBound& out) {
  for (const Term& term : terms_)
    if (!term.after) add_to_sum(term);
  for (std::int64_t c = 0; c < K_; ++c) {
    double& g = out.g[at(t * K_ + c)];
    g = of_running_sum(c, t);
    if (kda_) g += own_error_[at(c)] + 3.1 * u * (own_size_[at(c)] + g);
    g += lost_;
  }
  for (const Term& term : terms_)
    if (term.after) add_to_sum(term);
  terms_.clear();
}

void TokenAdjoint::read_token(std::int64_t t) {
  alpha_.resize(at(K_)), decay_error_.resize(at(K_));
  largest_alpha_ = largest_error_ = key_norm_ = query_norm_ = a_norm_ = b_norm_ = 0;
  double decayed_key = 0, decayed_a = 0, decayed_ab = 0;
  for (std::int64_t c = 0; c < K_; ++c) {
    const std::size_t entry = at(t * K_ + c);
    const double g = head_.g[entry], alpha = portable::exp(g);
    const double log_error = ProvedUnits::second_order * (head_.gate_error[entry] + ProvedUnits::argument * std::abs(g)) + gate_floor_;
    alpha_[at(c)] = alpha, decay_error_[at(c)] = portable::expm1(log_error + portable::log1p(units_.exponential)) + 2 * u;
    largest_alpha_ = std::max(largest_alpha_, alpha), largest_error_ = std::max(largest_error_, alpha * decay_error_[at(c)]);
    key_norm_ += square(head_.k[entry]), query_norm_ += square(head_.scale * head_.q[entry]), decayed_key += square(alpha * head_.k[entry]);
    if (!head_.dplr) continue;
    const double a = head_.a[entry], b = head_.b[entry];
    a_norm_ += square(a), b_norm_ += square(b), decayed_a += square(alpha * a), decayed_ab += alpha * a * b;
  }
  const double key_square = key_norm_, aa = a_norm_, bb = b_norm_;
  for (double* norm : {&key_norm_, &query_norm_, &a_norm_, &b_norm_}) *norm = std::sqrt(*norm);
  if (head_.normalised && units_.operand.flush > 0x1p-100) {
    theta_ = of_norm_;
    for (double norm : {query_norm_ / std::abs(head_.scale), norm_of((kda_ ? *kda_ : head_).k.data() + t * K_, K_)})
      theta_ = std::max(theta_, of_norm_ + units_.small_row(norm, root_));
    over_K_ = (1 + units_.gamma(K_ + 1)) * operand_ * (1 + theta_) - 1;
  }
  if (kda_) read_row_errors(t);
  if (head_.dplr) {
    const double trace = aa * bb - 2 * decayed_ab, determinant = std::max(0.0, decayed_a * bb - square(decayed_ab));
    const double eigenvalue = 0.5 * (trace + std::sqrt(square(trace) + 4 * determinant));
    step_norm_ = std::sqrt(square(largest_alpha_) + std::max(0.0, eigenvalue));
    return;
  }
  const double beta = head_.beta[at(t)], tau = beta * key_square, stretch = beta * (tau - 2);
  reflection_ = std::max(1.0, std::abs(1 - tau));
  step_norm_ = largest_alpha_;
  if (stretch > 0) step_norm_ = std::min(largest_alpha_ * reflection_, std::sqrt(square(largest_alpha_) + stretch * decayed_key));
}

void TokenAdjoint::receive(std::int64_t t, const std::vector<double>& d_o, const std::vector<double>& after, AdjointBound& out) {
  const double of_product = (1 + theta_) * operand_ * (1 + 3.1 * u) - 1, of_sum = (1 + over_V_) * (1 + 3.1 * u) - 1;
  double through = 0;
  for (std::int64_t j = 0; j < V_; ++j) {
    const double cotangent = std::abs(d_o[at(t * V_ + j)]), rho = rho_[at((t + 1) * V_ + j)];
    through += (rho + as_read(column_norm(after, j) + rho)) * (1 + of_sum) * cotangent;
    const double size = column_norm(adjoint_, j) + epsilon_[at(j)], sent = query_norm_ * cotangent * (1 + of_product);
    epsilon_[at(j)] += of_product * query_norm_ * cotangent + added_ * (size + sent) + flush_ * root_ * (cotangent + query_norm_ + 4);
  }
  for (std::int64_t c = 0; c < K_; ++c) {
    double exact = 0, size = 0;
    const double q = head_.scale * head_.q[at(t * K_ + c)];
    for (std::int64_t j = 0; j < V_; ++j) {
      const double term = after[at(c * V_ + j)] * d_o[at(t * V_ + j)];
      exact += term, size += std::abs(term);
      adjoint_[at(c * V_ + j)] += q * d_o[at(t * V_ + j)];
    }
    const double scale = std::abs(head_.scale);
    out.q_size[at(t * K_ + c)] = scale * std::abs(exact);
    out.q[at(t * K_ + c)] = scale * (through + of_sum * size) + flushed(size);
  }
}

void TokenAdjoint::retreat_kda(std::int64_t t, const std::vector<double>& before, AdjointBound& out) {
  const double beta = head_.beta[at(t)], of_beta = head_.beta_error[at(t)], strength = std::abs(beta), kappa = key_norm_ * (1 + theta_);
  const double of_scaled = (1 + over_V_) * (1 + of_beta) * (1 + 4.1 * u) - 1;
  const double of_product = (1 + theta_) * (1 + of_beta) * operand_ * (1 + 3.1 * u) - 1;
  std::vector<double> w(at(V_)), m(w), omega(w), mu(w), y(w), own(w), through(w);
  inner_sum_ = inner_largest_ = 0;
  double beta_error = 0, beta_exact = 0, common = 0;
  for (std::int64_t j = 0; j < V_; ++j) {
    double read = 0, held = 0;
    for (std::int64_t c = 0; c < K_; ++c) {
      const double k = head_.k[at(t * K_ + c)];
      read += k * alpha_[at(c)] * before[at(c * V_ + j)], held += k * adjoint_[at(c * V_ + j)];
    }
    const double v = head_.v[at(t * V_ + j)], xi = decayed_error_[at(j)], epsilon = lambda_error_[at(j)];
    const double lambda = size_[at(j)] + epsilon,
                 lost = 2 * flush_ * (root_ * (lambda + kappa + decayed_[at(j)] + xi) + static_cast<double>(K_) + 4);
    w[at(j)] = v - read, m[at(j)] = held;
    omega[at(j)] = kappa * xi + over_K_ * kappa * (decayed_[at(j)] + xi) + units_.gamma(K_ + 1) * std::abs(v) + lost;
    const double of_m = over_K_ * kappa * lambda + theta_ * kappa * lambda + lost; // besides k . E
    mu[at(j)] = kappa * epsilon + of_m;
    const double m_size = std::abs(held) + mu[at(j)], w_size = std::abs(w[at(j)]) + omega[at(j)];
    out.v[at(t)] =
        std::max(out.v[at(t)], strength * mu[at(j)] + ((1 + of_beta) * operand_ * (1 + 2.1 * u) - 1) * strength * m_size + flush_);
    beta_exact += held * w[at(j)];
    beta_error += mu[at(j)] * w_size + std::abs(held) * omega[at(j)] + over_V_ * m_size * w_size;
    common += epsilon * w_size + xi * m_size; // what every channel of dk has
    own[at(j)] = strength * kappa * of_m + of_product * strength * kappa * m_size +
                 added_ * (lambda + strength * kappa * m_size * (1 + of_product)) + (lambda_error_[at(j)] - epsilon_[at(j)]) * reflection_ +
                 lost;
    y[at(j)] = reflection_ * epsilon_[at(j)] + own[at(j)];
    count_inner({w_size, m_size, strength * key_norm_ * m_size + lambda + y[at(j)]});
  }
  out.beta_size[at(t)] = std::abs(beta_exact), out.beta[at(t)] = beta_error + flushed(1);
  std::vector<double> through_square(at(V_), 0.0), sent_square(at(V_), 0.0);
  for (std::int64_t c = 0; c < K_; ++c) {
    const double k = head_.k[at(t * K_ + c)], of_direct = (1 + over_V_) * (1 + decay_error_[at(c)]) * (1 + kept_unit()) * (1 + 2.1 * u) - 1;
    double k_exact = 0, k_own = 0, k_terms = 0, g_exact = 0, g_error = 0, g_terms = 0;
    for (std::int64_t j = 0; j < V_; ++j) {
      double& lambda = adjoint_[at(c * V_ + j)];
      const double x = alpha_[at(c)] * before[at(c * V_ + j)], Y = lambda - beta * k * m[at(j)];
      const double lambda_size = std::abs(lambda) + lambda_error_[at(j)], x_size = std::abs(x) + decayed_error_[at(j)];
      const double w_size = std::abs(w[at(j)]) + omega[at(j)], m_size = std::abs(m[at(j)]) + mu[at(j)];
      k_exact += lambda * w[at(j)] - x * m[at(j)];
      k_own += std::abs(lambda) * omega[at(j)] + std::abs(x) * mu[at(j)];
      k_terms += lambda_size * w_size + x_size * m_size;
      const double y_error = y[at(j)] + as_read(std::abs(Y) + y[at(j)]);
      g_exact += x * Y;
      g_error += decayed_error_[at(j)] * (std::abs(Y) + y_error) + std::abs(x) * y_error;
      g_terms += x_size * (std::abs(Y) + y_error);
      through_square[at(j)] += square(Y);
      lambda = alpha_[at(c)] * Y;
      sent_square[at(j)] += square(lambda);
    }
    const std::size_t entry = at(t * K_ + c);
    out.k_size[entry] = strength * std::abs(k_exact);
    out.k[entry] = strength * (common + k_own + of_scaled * k_terms) + flushed(k_terms);
    out.g_size[entry] = std::abs(g_exact);
    out.g[entry] = g_error + of_direct * g_terms + flushed(g_terms);
    if (!units_.decay_sums) continue;
    const double q = head_.q[entry];
    terms_.push_back({c, q, out.q[entry], out.q_size[entry] + out.q[entry], of_element(q), false});
    terms_.push_back({c, k, out.k[entry], strength * (1 + of_scaled) * k_terms, of_element(k), false});
  }
  for (std::int64_t j = 0; j < V_; ++j) {
    const double Y = std::sqrt(through_square[at(j)]) + y[at(j)];
    const double reached = step_norm_ * epsilon_[at(j)] + largest_alpha_ * own[at(j)] + largest_error_ * Y;
    epsilon_[at(j)] = reached + kept_unit() * (std::sqrt(sent_square[at(j)]) + reached) + root_ * std::max(0x1p-126, units_.state.flush);
  }
}

AdjointBound bound_adjoint(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t interval,
                           const std::vector<double>& d_o, const std::vector<double>& d_state, const std::vector<double>* states) {
  return TokenAdjoint(units, head, gate_floor, interval).run(d_o, d_state, states);
}

} // namespace kdacheck
