#include "budget_head.hpp"

#include "cases/portable_math.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace kdacheck {
namespace {

constexpr double u32 = 0x1p-24;
constexpr double norm_epsilon = 1e-6; // of design.md section 2

double softplus(double x) { return x > 0 ? x + portable::log1p(portable::exp(-x)) : portable::log1p(portable::exp(x)); }
double sigmoid(double x) { return x >= 0 ? 1 / (1 + portable::exp(-x)) : portable::exp(x) / (1 + portable::exp(x)); }

struct Resolved {
  double value, error;
};

/// Log decay and the largest error of its fp32 evaluation. Each line adds the roundings of one formula: an argument
/// rounded once moves the result by u |argument| |derivative|, a function value by its own few units.
Resolved resolve_gate(GateForm form, double x, double A_log, double dt_bias, double lower_bound, double exp_units) {
  switch (form) {
  case GateForm::absent: return {0, 0};
  case GateForm::log_decay: return {x, 0};
  case GateForm::softplus: {
    const double y = x + dt_bias, rate = portable::exp(A_log), value = -rate * softplus(y);
    const double argument = u32 * std::abs(y) * rate * sigmoid(y);
    return {value, argument + (2 * exp_units + 4) * u32 * std::abs(value)};
  }
  case GateForm::bounded: {
    const double rate = portable::exp(A_log), y = rate * (x + dt_bias), s = sigmoid(y);
    const double argument = (exp_units + 3) * u32 * std::abs(y) * s * (1 - s) * std::abs(lower_bound);
    return {lower_bound * s, argument + (exp_units + 4) * u32 * std::abs(lower_bound * s)};
  }
  default: {
    // alpha = sigmoid(x): a kernel may form alpha and take its logarithm, which costs units of alpha, not of its logarithm
    const double value = -softplus(-x);
    return {value, (exp_units + 4) * u32 * (1 + std::abs(value))};
  }
  }
}

struct Slope {
  double value = 1, error = 0;
};

/// d log decay / d g, and d log decay / d A_log. An s (1 - s) from a rounded s is off by u s however small 1 - s is.
std::pair<Slope, Slope> gate_slopes(GateForm form, double x, double A_log, double dt_bias, double lower_bound, double exp_units) {
  switch (form) {
  case GateForm::softplus: {
    const double y = x + dt_bias, rate = portable::exp(A_log), s = sigmoid(y), value = -rate * s, decay = -rate * softplus(y);
    const double relative = (2 * exp_units + 5 + std::abs(y) * (1 - s)) * u32;
    return {{value, relative * std::abs(value)},
            {decay, u32 * std::abs(y) * std::abs(value) + (2 * exp_units + 5) * u32 * std::abs(decay)}};
  }
  case GateForm::bounded: {
    const double rate = portable::exp(A_log), y = rate * (x + dt_bias), s = sigmoid(y), bell = s * (1 - s) * std::abs(lower_bound);
    const double error = u32 * ((2 * exp_units + 8 + (exp_units + 3) * std::abs(y)) * bell + (exp_units + 3) * s * std::abs(lower_bound));
    return {{-bell * rate, error * rate}, {-bell * y, error * std::abs(y)}};
  }
  case GateForm::sigmoid: {
    const double slope = sigmoid(-x);
    return {{slope, (exp_units + 4) * u32 * (slope + 1)}, {}};
  }
  default: return {};
  }
}

Slope beta_slope_of(BetaForm form, double x, double exp_units) {
  if (form == BetaForm::value) return {};
  const double s = sigmoid(x), factor = form == BetaForm::twice_sigmoid ? 2 : 1;
  return {factor * s * (1 - s), factor * (exp_units + 4) * u32 * s};
}

Resolved resolve_beta(BetaForm form, double x, double exp_units) {
  switch (form) {
  case BetaForm::value: return {x, 0};
  case BetaForm::sigmoid: return {sigmoid(x), (exp_units + 3) * u32};
  default: return {2 * sigmoid(x), (exp_units + 3) * u32};
  }
}

/// A rounding to a coarse format of sums, a whole unit where the contract truncates; fp16 has no finer numbers than 2^-24.
double term_error(const Contract& contract, GateForm form, double g) {
  const Format sums = contract.cumsum;
  if (unit_roundoff(sums) <= u32) return 0;
  if (form == GateForm::log_decay && round_to(sums, static_cast<float>(g)) == static_cast<float>(g)) return 0;
  const double unit = unit_roundoff(sums) * (contract.truncate && sums == Format::tf32 ? 2 : 1);
  return std::max(unit * std::abs(g), sums == Format::fp16 && g != 0 ? 0x1p-25 : 0.0);
}

double norm_factor(const float* x, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return 1 / std::sqrt(sum + norm_epsilon);
}

void copy_rows(std::vector<double>& out, const float* from, std::int64_t rows, std::int64_t stride, std::int64_t width) {
  out.resize(static_cast<std::size_t>(rows * width));
  for (std::int64_t t = 0; t < rows; ++t)
    for (std::int64_t c = 0; c < width; ++c) out[static_cast<std::size_t>(t * width + c)] = from[t * stride + c];
}

} // namespace

std::vector<double> column_sizes(const Problem& problem, const Sequence& sequence, std::int64_t head) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  std::vector<double> squares(static_cast<std::size_t>(V), 0.0);
  const auto add = [&](const float* rows, std::int64_t count, std::int64_t stride) {
    for (std::int64_t t = 0; t < count; ++t)
      for (std::int64_t j = 0; j < V; ++j) {
        const double x = rows[t * stride + j];
        squares[static_cast<std::size_t>(j)] += x * x / static_cast<double>(count);
      }
  };
  if (sequence.length > 0) add(problem.v.data() + (sequence.first * HV + head) * V, sequence.length, HV * V);
  if (!problem.initial_state.empty()) add(problem.initial_state.data() + (sequence.index * HV + head) * K * V, K, V);
  const double largest_square = *std::max_element(squares.begin(), squares.end());
  for (double& x : squares) x = largest_square > 0 ? std::sqrt(std::max(x, largest_square * 0x1p-100)) : 1.0;
  return squares;
}

std::vector<std::int64_t> choose_columns(const std::vector<double>& sizes, std::int64_t most) {
  const auto V = static_cast<std::int64_t>(sizes.size());
  std::vector<std::int64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  if (V <= most) return order;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t i, std::int64_t j) { return sizes[static_cast<std::size_t>(i)] > sizes[static_cast<std::size_t>(j)]; });
  std::vector<std::int64_t> chosen(order.begin(), order.begin() + most / 2);
  const std::int64_t rest = most - most / 2, left = V - most / 2;
  for (std::int64_t i = 0; i < rest; ++i) chosen.push_back(order[static_cast<std::size_t>(most / 2 + i * left / rest)]);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

Head read_head(const Contract& contract, const Problem& problem, const Sequence& sequence, std::int64_t head,
               std::vector<std::int64_t> columns) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const std::int64_t n = sequence.length, key_head = head / (HV / H);
  Head result;
  result.tokens = n;
  result.K = K;
  result.V = static_cast<std::int64_t>(columns.size());
  result.scale = problem.options.scale;
  result.dplr = problem.options.rule == Rule::dplr;
  result.normalised = problem.options.l2norm;
  copy_rows(result.q, problem.q.data() + (sequence.first * H + key_head) * K, n, H * K, K);
  copy_rows(result.k, problem.k.data() + (sequence.first * H + key_head) * K, n, H * K, K);
  if (result.normalised) {
    for (std::int64_t t = 0; t < n; ++t) {
      const std::int64_t row = ((sequence.first + t) * H + key_head) * K;
      const double of_q = norm_factor(problem.q.data() + row, K), of_k = norm_factor(problem.k.data() + row, K);
      result.q_norm.push_back(of_q);
      result.k_norm.push_back(of_k);
      for (std::int64_t c = 0; c < K; ++c) {
        result.q[static_cast<std::size_t>(t * K + c)] *= of_q;
        result.k[static_cast<std::size_t>(t * K + c)] *= of_k;
      }
    }
    // half the sum's relative error (K additions of positive terms, in any order at most K u, at random root K u), then
    // a reciprocal root of two units
    result.norm_error = (0.5 * std::sqrt(static_cast<double>(K)) + 4) * u32;
  }
  result.v.resize(static_cast<std::size_t>(n * result.V));
  result.g.resize(static_cast<std::size_t>(n * K));
  for (auto* each : {&result.gate_error, &result.sum_error, &result.gate_slope, &result.gate_slope_error}) each->resize(result.g.size());
  if (!problem.A_log.empty())
    for (auto* each : {&result.rate_slope, &result.rate_slope_error}) each->resize(result.g.size());
  result.beta_slope.assign(static_cast<std::size_t>(n), 1.0);
  result.beta_slope_error.assign(static_cast<std::size_t>(n), 0.0);
  result.beta.assign(static_cast<std::size_t>(n), 1.0);
  result.beta_error.assign(static_cast<std::size_t>(n), 0.0);
  const auto exact = [&](float x) { return round_to(contract.operands, x) == x; };
  const GateForm form = problem.options.gate;
  const double A_log = problem.A_log.empty() ? 0.0 : problem.A_log[static_cast<std::size_t>(head)];
  for (std::int64_t t = 0; t < n; ++t) {
    const std::int64_t row = (sequence.first + t) * HV + head;
    for (std::int64_t j = 0; j < result.V; ++j) {
      const float x = problem.v[static_cast<std::size_t>(row * V + columns[static_cast<std::size_t>(j)])];
      result.v[static_cast<std::size_t>(t * result.V + j)] = x;
      result.exact_values = result.exact_values && exact(x);
    }
    for (std::int64_t c = 0; c < K; ++c) {
      const auto at = static_cast<std::size_t>(t * K + c);
      const double x = problem.g.empty() ? 0.0 : problem.g[static_cast<std::size_t>(row * K + c)];
      const double dt = problem.dt_bias.empty() ? 0.0 : problem.dt_bias[static_cast<std::size_t>(head * K + c)];
      const Resolved gate = resolve_gate(form, x, A_log, dt, problem.options.lower_bound, 2 * contract.exp_ulp);
      result.g[at] = gate.value;
      result.gate_error[at] = gate.error;
      result.sum_error[at] = term_error(contract, form, gate.value);
      const auto [slope, rate] = gate_slopes(form, x, A_log, dt, problem.options.lower_bound, 2 * contract.exp_ulp);
      result.gate_slope[at] = slope.value, result.gate_slope_error[at] = slope.error;
      if (!problem.A_log.empty()) result.rate_slope[at] = rate.value, result.rate_slope_error[at] = rate.error;
    }
    if (!result.dplr) {
      const Resolved beta = resolve_beta(problem.options.beta, problem.beta[static_cast<std::size_t>(row)], 2 * contract.exp_ulp);
      result.beta[static_cast<std::size_t>(t)] = beta.value;
      result.beta_error[static_cast<std::size_t>(t)] = beta.error;
      const Slope slope = beta_slope_of(problem.options.beta, problem.beta[static_cast<std::size_t>(row)], 2 * contract.exp_ulp);
      result.beta_slope[static_cast<std::size_t>(t)] = slope.value, result.beta_slope_error[static_cast<std::size_t>(t)] = slope.error;
    }
  }
  if (result.dplr) {
    copy_rows(result.a, problem.a.data() + (sequence.first * HV + head) * K, n, HV * K, K);
    copy_rows(result.b, problem.b.data() + (sequence.first * HV + head) * K, n, HV * K, K);
  }
  result.state.assign(static_cast<std::size_t>(K * result.V), 0.0);
  if (!problem.initial_state.empty())
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < result.V; ++j)
        result.state[static_cast<std::size_t>(c * result.V + j)] =
            problem
                .initial_state[static_cast<std::size_t>(((sequence.index * HV + head) * K + c) * V + columns[static_cast<std::size_t>(j)])];
  const std::vector<double> sizes = column_sizes(problem, sequence, head);
  for (double size : sizes) result.unseen += size * size;
  for (std::int64_t j : columns) {
    const double size = sizes[static_cast<std::size_t>(j)];
    result.weight.push_back(size);
    result.unseen -= size * size;
  }
  result.all_columns = V;
  if (result.V == V) result.unseen = 0; // exactly
  result.columns = std::move(columns);
  return result;
}

} // namespace kdacheck
