// Error theory, S11: exact, sharp and independent of any oracle; a decayed, transposed or shifted state breaks them.

#include "../single_step.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::laws {
namespace {

// w^T S_t = (1 - share) w^T D S_{t-1} + share v for every channel.
void expect_read(Trial& trial, const Step& step, const std::vector<double>& w, double share, const char* what) {
  for (std::int64_t j = 0; j < step.V; ++j) {
    double after = 0, kept = 0, size = std::abs(share * step.v[static_cast<std::size_t>(j)]), allowed = 0;
    for (std::int64_t i = 0; i < step.K; ++i) {
      const auto c = static_cast<std::size_t>(i);
      const double term = step.kda.alpha[c] * w[c] * step.at(step.before, i, j);
      after += w[c] * step.at(step.after, i, j);
      kept += term;
      size += std::abs(term) + std::abs(w[c] * step.at(step.after, i, j));
      allowed += std::abs(w[c]) * step.at(step.allowed, i, j);
    }
    const double due = (1 - share) * kept + share * step.v[static_cast<std::size_t>(j)];
    // the sums here are in double: K roundings of the terms, and w's own orthogonality
    const double own = 4 * static_cast<double>(step.K) * 0x1p-53 * size * (1 + std::abs(share));
    trial.expect_within(std::abs(after - due), allowed + own, what, step.place(-1, j));
  }
}

// |S_t|^2 = |D S|^2 - beta (2 - tau) (k^T D S)^2 + 2 beta v k^T A S + (beta v |k|)^2, where k^T A S = (1 - tau) k^T D S.
void expect_energy(Trial& trial, const Step& step) {
  double square_of_key = 0;
  for (const double x : step.kda.k) square_of_key += x * x;
  const double t = tau(step.kda);
  for (std::int64_t j = 0; j < step.V; ++j) {
    double after = 0, kept = 0, along = 0, along_size = 0, allowed = 0;
    for (std::int64_t i = 0; i < step.K; ++i) {
      const auto c = static_cast<std::size_t>(i);
      const double s = step.kda.alpha[c] * step.at(step.before, i, j), x = step.at(step.after, i, j), e = step.at(step.allowed, i, j);
      after += x * x, kept += s * s, along += step.kda.k[c] * s, along_size += std::abs(step.kda.k[c] * s);
      allowed += (2 * std::abs(x) + e) * e;
    }
    const double written = step.kda.beta * step.v[static_cast<std::size_t>(j)];
    const double erased = step.kda.beta * (2 - t), read = 2 * written * (1 - t), own = written * written * square_of_key;
    const double size = after + kept + std::abs(erased) * along_size * along_size + std::abs(read) * along_size + own;
    const double in_double = 8 * static_cast<double>(step.K) * 0x1p-53 * size * (1 + std::abs(t));
    trial.expect_within(std::abs(after - (kept - erased * along * along + read * along + own)), allowed + in_double, "|S|^2",
                        step.place(-1, j));
  }
}

void law(Trial& trial) {
  Recipe recipe = trial.plain();
  trial.applies_if(recipe.options.rule == Rule::kda, "an identity of KDA");
  recipe.lengths.clear();
  const Problem problem = trial.make(recipe);
  trial.applies_if(problem.shape.T >= 1, "no tokens");
  const std::int64_t count = std::min<std::int64_t>(3, problem.shape.T);
  for_each_step(trial, problem, trial.pick(problem.shape.T - count + 1), count, [&](const Step& step) {
    // any direction w, in two parts: what it has of k, and the rest
    const auto K = static_cast<std::size_t>(step.K);
    std::vector<double> w(K);
    double square = 0, along = 0;
    for (std::size_t i = 0; i < K; ++i) {
      w[i] = static_cast<double>(trial.pick(2001) - 1000) / 1000;
      square += step.kda.k[i] * step.kda.k[i];
      along += w[i] * step.kda.k[i];
    }
    for (std::size_t i = 0; i < K && square > 0; ++i) w[i] -= along / square * step.kda.k[i];
    expect_read(trial, step, step.kda.k, tau(step.kda), "k^T S");
    expect_read(trial, step, w, 0, "w^T S for w orthogonal to k");
    expect_energy(trial, step);
  });
}

} // namespace

Property each_step_keeps_its_identities() {
  return {.name = "each-step-keeps-its-identities",
          .claim =
              "a step changes the state along its key alone: k^T S = (1 - tau) k^T D S + tau v, w^T S = w^T D S for w orthogonal to k, and "
              "|S|^2 accordingly",
          .check = tried<law>};
}

} // namespace kdacheck::laws
