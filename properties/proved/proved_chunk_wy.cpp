// What gradients of a kernel err by that has W = T beta kd: derived in proved_chunk_adjoint.cpp, 9.

#include "proved_chunk_adjoint.hpp"

#include "../cases/portable_math.hpp"

#include <numeric>

namespace kdacheck {

void ChunkAdjoint::bound_erasure() {
  const double y = product_unit(V_), u = units_.operand.unit, flush = units_.operand.flush;
  BoundMatrix error, size, solution;
  for (BoundMatrix* m : {&error, &size, &solution, &erased_size_, &erased_own_error_, &key_cotangent_, &scaled_key_error_})
    m->resize(n_, K_);
  scaled_value_error_.resize(n_, V_);
  const double state_errors = std::accumulate(state_error_.begin(), state_error_.end(), 0.0);
  const auto kept = [&](double of_size, double by) {
    return of_size + by <= units_.operand.limit ? by : std::numeric_limits<double>::infinity();
  };
  for (std::int64_t i = 0; i < n_; ++i) {
    const double key_norm = norm_of(remaining_[i], K_), strength = std::abs(beta(i)), rounded = (1 + beta_error(i)) * (1 + f) * (1 + u);
    for (std::int64_t c = 0; c < K_; ++c) {
      Lanes w{}, k{}, all{}, own{}, of_state{}, of_both{};
      for (std::int64_t v = 0; v < V_; v += draws_per_batch) {
        const Lanes S = lanes_at(state_[c], v, V_), e = lanes_at(state_error_.data(), v, V_), epsilon = lanes_at(epsilon_.data(), v, V_);
        const Lanes dU = lanes_at(dU_[i], v, V_), dZ = lanes_at(dZ_[i], v, V_), S_size = absolute(S) + e;
        w += dU * S, k += dZ * S;
        all += (absolute(dU) + lanes_at(dU_error_[i], v, V_)) * S_size, own += lanes_at(dU_own_error_[i], v, V_) * S_size;
        of_state += absolute(dU) * e + key_norm * epsilon * S_size;
        of_both += absolute(dZ) * e + held_[at(i)] * epsilon * S_size;
      }
      key_cotangent_[i][c] = total(k);
      const double made = y * total(all) + lost(dU_sum_[at(i)] + state_row_sum_[at(c)] + state_errors);
      size[i][c] = std::abs(total(w)) + total(of_state);
      erased_own_error_[i][c] = sane((made + units_.operand.error(size[i][c] + total(own) + made)) * ProvedUnits::up);
      error[i][c] = sane(total(own) + erased_own_error_[i][c]);
      erased_size_[i][c] = size[i][c] + error[i][c];
      solution[i][c] = std::abs(total(k)) + total(of_both);
      scaled_key_error_[i][c] = kept(strength * std::abs(key_[i][c]), strength * (key_slack_[i][c] + flush) * rounded +
                                                                          (rounded - 1) * strength * std::abs(key_[i][c]) + 2 * flush);
    }
    for (std::int64_t j = 0; j < V_; ++j) {
      const double product = strength * std::abs(head_.v[at((first_ + i) * V_ + j)]);
      scaled_value_error_[i][j] = kept(product, (rounded - 1) * product + 2 * flush);
    }
  }
  back_.solve_transposed(K_, size, error, solution, key_cotangent_error_);
  for (std::int64_t i = 0; i < n_; ++i)
    for (std::int64_t c = 0; c < K_; ++c)
      key_cotangent_error_[i][c] = sane(key_cotangent_error_[i][c] + solution[i][c] - std::abs(key_cotangent_[i][c]));
}

double ChunkAdjoint::error_of_inverse_cotangent(std::int64_t i, std::int64_t j) const {
  const double g = units_.gamma(V_ + K_), strength = std::abs(beta(j));
  Lanes result{};
  for (std::int64_t v = 0; v < V_; v += draws_per_batch) {
    const Lanes size = absolute(lanes_at(dU_[i], v, V_)) + lanes_at(dU_error_[i], v, V_), error = lanes_at(scaled_value_error_[j], v, V_);
    result += size * (error + g * (strength * absolute(lanes_at(head_.v.data() + (first_ + j) * V_, v, V_)) + error));
  }
  for (std::int64_t c = 0; c < K_; c += draws_per_batch) {
    const Lanes key = strength * absolute(lanes_at(key_[j], c, K_)), error = lanes_at(scaled_key_error_[j], c, K_);
    result += lanes_at(erased_own_error_[i], c, K_) * key + lanes_at(erased_size_[i], c, K_) * (error + g * (key + error));
  }
  return total(result) + lost(1);
}

double ChunkAdjoint::error_of_erasing_row(std::int64_t i, std::int64_t c, double decay, double log_error) const {
  const double error = key_cotangent_error_[i][c], size = std::abs(key_cotangent_[i][c]) + error;
  return std::abs(beta(i)) * decay * (decay_slack(log_error + portable::log1p(beta_error(i))) * size + error) + lost(size);
}

double ChunkAdjoint::error_of_strength(std::int64_t i) const {
  const double u = units_.operand.unit, made = (1 + units_.gamma(V_ + K_ + n_ + 2)) * (1 + u) * (1 + u) - 1;
  double result = lost(dZ_sum_[at(i)] + key_sum_[at(i)]);
  for (std::int64_t j = 0; j < V_; ++j) {
    const double v = std::abs(head_.v[at((first_ + i) * V_ + j)]);
    result += 4 * flush_ * v + (dZ_error_[i][j] + made * (std::abs(dZ_[i][j]) + dZ_error_[i][j])) * v;
  }
  for (std::int64_t c = 0; c < K_; ++c) {
    const double error = key_cotangent_error_[i][c], size = std::abs(key_cotangent_[i][c]) + error, slack = key_slack_[i][c];
    result += 4 * flush_ * size + error * std::abs(key_[i][c]) + size * (slack + made * (std::abs(key_[i][c]) + slack));
  }
  return result;
}

} // namespace kdacheck
