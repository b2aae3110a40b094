#include "module_bench.hpp"

#include "../kernels/modules/gating.hpp"
#include "../kernels/modules/state_manager.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

namespace kdacheck {
namespace {

using namespace modules;

constexpr StateShape states{4, 8, 64, 64};
constexpr double allowed_of_figure = 1.0 / 20, allowed_with_checkpoints = 1.02, allowed_of_general = 1 / 1.8;

std::vector<float> numbers(std::int64_t count, float middle, float spread) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = middle + spread * static_cast<float>(static_cast<double>(i * 7919 % 2001) / 1000 - 1);
  return values;
}

template <class Work> double milliseconds(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

/// A row of a call that is repeated often enough to be timed, and its ratio to the summary's figure.
template <class Work>
void against_figure(Bench& bench, const char* module, std::string what, std::string label, double figure_ms, double flops,
                    const Work& work) {
  constexpr int calls = 20;
  std::vector<double> times;
  work(); // warm caches, pools and page tables
  for (int i = 0; i < bench.repeats; ++i)
    times.push_back(milliseconds([&] {
                      for (int n = 0; n < calls; ++n) work();
                    }) /
                    calls);
  std::ranges::sort(times);
  const BenchRow row{.kernel = module,
                     .what = what,
                     .label = label,
                     .median_ms = times[times.size() / 2],
                     .least_ms = times.front(),
                     .most_ms = times.back(),
                     .flops = flops};
  bench.ratios.push_back({.subject = module,
                          .what = fmt::format("{} / summary's {} ms", what, figure_ms),
                          .label = label,
                          .first_ms = row.median_ms,
                          .second_ms = figure_ms,
                          .ratio = row.median_ms / figure_ms,
                          .least = row.least_ms / figure_ms,
                          .most = row.most_ms / figure_ms,
                          .allowed = allowed_of_figure});
  std::fprintf(stderr, "%s %s: %.4f ms\n", module, what.c_str(), row.median_ms);
  bench.rows.push_back(row);
}

template <class First, class Second>
void by_turns(Bench& bench, const char* module, const char* what, double allowed, const First& first, const Second& second) {
  std::vector<double> firsts, seconds, quotients;
  first(), second();
  for (int i = 0; i < bench.repeats; ++i) {
    seconds.push_back(milliseconds(second)), firsts.push_back(milliseconds(first));
    quotients.push_back(firsts.back() / seconds.back());
  }
  for (auto* values : {&firsts, &seconds, &quotients}) std::ranges::sort(*values);
  const std::size_t middle = quotients.size() / 2;
  bench.ratios.push_back({.subject = module,
                          .what = what,
                          .label = "B 4, H 8, K 64, V 64",
                          .first_ms = firsts[middle],
                          .second_ms = seconds[middle],
                          .ratio = quotients[middle],
                          .least = quotients.front(),
                          .most = quotients.back(),
                          .allowed = allowed});
}

} // namespace

void bench_modules(Bench& bench) {
  constexpr std::int64_t B = 4, T = 128, D = 512;
  for (const std::int64_t rank : {16, 64})
    for (const GateForm form : {GateForm::sigmoid, GateForm::softplus}) {
      const Gating module{.D = D, .rank = rank, .H = 8, .K = 64, .form = form};
      const GatingParameters parameters = xavier_parameters(module, 1);
      const std::vector<float> x = numbers(B * T * D, 0, 1);
      std::vector<float> alpha(static_cast<std::size_t>(B * T * module.width()));
      against_figure(bench, "module.FineGrainedGating", fmt::format("{} forward, rank {}", name(form), rank),
                     "B 4, T 128, D 512, H 8, K 64", 2.35, 2.0 * static_cast<double>(B * T * rank * (D + module.width())), [&] {
                       gates(module, parameters, {B, T, x}, {alpha, {}});
                     });
    }

  const std::int64_t heads = states.B * states.H;
  const std::vector<float> alpha = numbers(heads * 64, 0.97f, 0.03f), k = numbers(heads * 64, 0, 0.125f), v = numbers(heads * 64, 0, 1),
                           beta(static_cast<std::size_t>(heads), 0.5f);
  const KdaStep kda{alpha, k, beta, v};
  const DplrStep general{alpha, k, k, k, v};
  std::vector<float> state = numbers(states.elements(), 0, 1), other = state;
  const char* label = "B 4, H 8, K 64, V 64";
  const double flops = 6.0 * static_cast<double>(states.elements());
  const std::vector<float> kept_whole(alpha.size(), 1.0f); // what only decays would end in subnormal numbers
  const KdaStep lasting{kept_whole, k, beta, v};
  against_figure(bench, "module.DPLRTransition", "transition", label, 1.30, flops, [&] { transition(states, lasting, state); });
  against_figure(bench, "module.DPLRTransition", "update", label, 0.66, flops, [&] { update(states, kda, state); });
  StateManager plain({.largest = states, .checkpoint_interval = 0}), kept({.largest = states});
  const StateTokens token{4, 1, alpha, k, beta, v};
  against_figure(bench, "module.StateManager", "update", label, 2.65, flops, [&] { plain.update(token); });
  const auto thousand = [&](StateManager& manager) {
    for (int i = 0; i < 1000; ++i) manager.update(token);
  };
  by_turns(
      bench, "module.StateManager", "1000 updates with checkpoint / without", allowed_with_checkpoints, [&] { thousand(kept); },
      [&] { thousand(plain); });
  const auto hundred = [](const auto& step, std::vector<float>& S) {
    for (int i = 0; i < 100; ++i) update(states, step, S);
  };
  by_turns(
      bench, "module.DPLRTransition", "update, KDA's / general", allowed_of_general, [&] { hundred(kda, state); },
      [&] { hundred(general, other); });
}

} // namespace kdacheck
