#include "single_step.hpp"

#include <cmath>

namespace kdacheck {
namespace {

/// Relative errors of one step. Operands are rounded by T beta, kd or W, and S on the way to the residual, by T beta and
/// U on the way to the write (order wy rounds most); sums of up to K products and four single operations round in the
/// accumulator's format. A state in a narrower format may be rounded when it is read and when it is stored: by u |S|, or where
/// the format has no finer numbers by half its smallest (`state_quantum`; fp16's is 2^-24). Read so, an error passes through the
/// readback by |reader| and through the decay by alpha; stored so, it stays as it is.
struct Roundings {
  double operand, sum, single, exponential_ulp, exponent, state, state_quantum, quantum;

  Roundings(const Contract& c, std::int64_t K)
      : operand((c.truncate ? 2 : 1) * unit_roundoff(c.operands)), sum(1.01 * static_cast<double>(K) * unit_roundoff(c.accumulate)),
        single(unit_roundoff(c.accumulate)), exponential_ulp(c.exp_ulp * 0x1p-23), exponent(2 * unit_roundoff(c.cumsum)),
        state(c.state == Format::fp32 ? 0 : unit_roundoff(c.state)),
        state_quantum(c.state == Format::fp32 ? 0 : std::ldexp(1.0, least_exponent(c.state) - 1)),
        quantum(std::ldexp(1.0, least_exponent(c.operands) - 1)) {}

  double decay(double alpha) const { return 1.01 * (exponential_ulp + exponent * (alpha > 0 ? -std::log(alpha) : 0)); }
};

// exact = keep_i S_ij - remove_i (sum_m read_m S_mj) + write_i v_j, with |error| bounded term by term.
void bound(Step& step, const Contract& contract) {
  const Roundings u(contract, step.K);
  const bool kda = step.rule == Rule::kda;
  const auto K = static_cast<std::size_t>(step.K), V = static_cast<std::size_t>(step.V);
  const std::vector<double>& keep = kda ? step.kda.alpha : step.dplr.d;
  step.allowed.assign(K * V, 0);
  const double beta = kda ? std::abs(step.kda.beta) : 1;
  for (std::size_t j = 0; j < V; ++j) {
    double seen = 0, seen_error = 0;
    for (std::size_t m = 0; m < K; ++m) {
      const double reader = kda ? step.kda.k[m] * keep[m] : step.dplr.b[m], S = step.before[m * V + j];
      seen += reader * S;
      seen_error += std::abs(reader * S) * (4.1 * u.operand + u.sum + u.decay(keep[m]) + 4 * u.single + u.state) +
                    u.quantum * (std::abs(reader) + std::abs(S) + 1) + u.state_quantum * std::abs(reader);
    }
    // what is written along the key, and what its rounding may be
    const double v = step.v[j], residual = kda ? std::abs(v - seen) : std::abs(seen);
    // a sum that starts at v rounds at every one of its K additions by u |v|
    const double U = beta * residual,
                 U_error = beta * (seen_error + (kda ? std::abs(v) : 0) * (3.1 * u.operand + u.sum + 4 * u.single)) + u.quantum;
    for (std::size_t i = 0; i < K; ++i) {
      const double along = std::abs(kda ? step.kda.k[i] : step.dplr.a[i]), kept = std::abs(keep[i] * step.before[i * V + j]);
      const double written = kda ? 0 : std::abs(step.kda.k[i] * v);
      const double size = kept + along * U + written;
      const double error = along * (1.01 * U_error + U * (2.1 * u.operand + 3 * u.single)) + u.quantum * (along + U + 1) +
                           kept * (u.decay(keep[i]) + 3 * u.single + u.state) + u.state_quantum * std::abs(keep[i]) +
                           written * (3.1 * u.operand + 4 * u.single);
      step.allowed[i * V + j] = 1.01 * (error + u.state * size + u.state_quantum) + 0x1p-140;
    }
  }
}

std::vector<double> copied(const std::vector<float>& from, std::int64_t first, std::int64_t count) {
  return {from.begin() + first, from.begin() + first + count};
}

Step step_of(const Problem& problem, const Run& run, std::int64_t n, std::int64_t head) {
  const auto [B, T, H, HV, K, V] = problem.shape;
  const std::int64_t row = n * HV + head, key_row = n * H + head / (HV / H);
  Step step;
  step.sequence = n;
  step.head = head;
  step.K = K;
  step.V = V;
  step.rule = problem.options.rule;
  step.kda.k = copied(problem.k, key_row * K, K);
  std::vector<double> alpha(static_cast<std::size_t>(K), 1.0);
  for (std::size_t i = 0; i < alpha.size() && !problem.g.empty(); ++i)
    alpha[i] = std::exp(double{problem.g[static_cast<std::size_t>(row * K) + i]});
  if (step.rule == Rule::kda) {
    step.kda.beta = problem.beta[static_cast<std::size_t>(row)];
    step.kda.alpha = alpha;
  } else {
    step.dplr = {alpha, copied(problem.a, row * K, K), copied(problem.b, row * K, K)};
  }
  step.v = copied(problem.v, row * V, V);
  step.before.assign(static_cast<std::size_t>(K * V), 0.0);
  if (!problem.initial_state.empty()) step.before = copied(problem.initial_state, row * K * V, K * V);
  step.after = copied(run.final_state, row * K * V, K * V);
  return step;
}

} // namespace

Place Step::place(std::int64_t row, std::int64_t channel) const {
  return {.tensor = "final_state", .sequence = sequence, .head = head, .token = token, .channel = channel, .row = row};
}

void for_each_step(Trial& trial, const Problem& problem, std::int64_t first, std::int64_t count,
                   const std::function<void(const Step&)>& visit) {
  trial.applies_if(trial.contract.initial_state, "the kernel takes no initial state");
  std::vector<float> state = problem.initial_state;
  for (std::int64_t t = first; t < first + count; ++t) {
    Problem one = chosen(problem, window(problem, t, 1));
    one.initial_state = state;
    const Run run = trial.forward(one);
    state = run.final_state;
    for (std::int64_t n = 0; n < one.shape.B; ++n)
      for (std::int64_t head = 0; head < one.shape.HV; ++head) {
        Step step = step_of(one, run, n, head);
        step.token = t;
        bound(step, trial.contract);
        visit(step);
      }
  }
}

} // namespace kdacheck
