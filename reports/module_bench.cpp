#include "module_bench.hpp"

#include "../kernels/cpu/product.hpp"
#include "../kernels/modules/gating.hpp"
#include "../kernels/modules/state_manager.hpp"
#include "../reference/atomic_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <span>
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

/// A row of a call, each timed alone: a call in which the machine did something else does not touch the median. Its ratio to the
/// summary's figure.
template <class Work>
void against_figure(Bench& bench, const char* module, std::string what, std::string label, double figure_ms, double flops,
                    const Work& work) {
  constexpr int calls = 20;
  std::vector<double> times;
  work(); // warm caches, pools and page tables
  for (int i = 0; i < calls * bench.repeats; ++i) times.push_back(milliseconds(work));
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

/// What the products alone take if every multiply-add runs at the measured peak, against the summary's figure: no kernel in fp32
/// comes below it.
void floor_of_products(Bench& bench, const std::string& what, const std::string& label, double figure_ms, double flops) {
  const double least = flops / bench.limits.fp32_flops_per_second * 1e3, ratio = least / figure_ms;
  bench.ratios.push_back({.subject = "module.FineGrainedGating",
                          .what = fmt::format("{}: products at peak / {} ms", what, figure_ms),
                          .label = label,
                          .first_ms = least,
                          .second_ms = figure_ms,
                          .ratio = ratio,
                          .least = ratio,
                          .most = ratio,
                          .allowed = allowed_of_figure});
}

/// What a checkpoint of the default interval adds. A thousand updates scatter by more than one copy takes, so the copy is timed in
/// twenty updates, against the same twenty without, many times by turns; it comes once in `checkpoint_interval` updates. With a folder it
/// is written there too, to the disk.
void overhead_of_checkpoints(Bench& bench, const StateTokens& token, const std::filesystem::path& folder) {
  constexpr int half = 10;
  StateManager manager({.largest = states, .checkpoint_interval = 0, .folder = folder});
  const auto updates = [&] {
    for (int i = 0; i < half; ++i) manager.update(token);
  };
  std::vector<double> without, added;
  for (int i = 0; i < 40 * bench.repeats; ++i) {
    const double one = milliseconds([&] { updates(), updates(); });
    const double other = milliseconds([&] { updates(), manager.checkpoint(), updates(); });
    if (i < 10) continue; // the checkpoints' memory is taken
    without.push_back(one), added.push_back(other - one);
  }
  std::ranges::sort(without), std::ranges::sort(added);
  const double interval = static_cast<double>(StateSettings{}.checkpoint_interval), update = without[without.size() / 2] / (2 * half);
  const auto ratio = [&](std::size_t quarter) { return 1 + added[added.size() * quarter / 4] / (interval * update); };
  bench.ratios.push_back({.subject = "module.StateManager",
                          .what = folder.empty() ? "1000 updates and a checkpoint / 1000" : "1000 updates, one checkpoint to disk / 1000",
                          .label = "B 4, H 8, K 64, V 64; quartiles",
                          .first_ms = interval * update * ratio(2),
                          .second_ms = interval * update,
                          .ratio = ratio(2),
                          .least = ratio(1),
                          .most = ratio(3),
                          .allowed = allowed_with_checkpoints});
}

/// The same where a thread of its own writes: it takes of what the updates could have, so whole intervals are timed by turns.
void overhead_of_writing_behind(Bench& bench, const StateTokens& token, const std::filesystem::path& folder) {
  const std::int64_t interval = StateSettings{}.checkpoint_interval;
  StateManager manager({.largest = states, .checkpoint_interval = 0, .folder = folder, .write_behind = true});
  const auto updates = [&] {
    for (std::int64_t i = 0; i < interval; ++i) manager.update(token);
  };
  std::vector<double> without, with, quotients;
  for (int i = 0; i < 4 * bench.repeats + 1; ++i) {
    const double other = milliseconds([&] { manager.checkpoint(), updates(), manager.finish_writing(); }), one = milliseconds(updates);
    if (i == 0) continue;
    without.push_back(one), with.push_back(other), quotients.push_back(other / one);
  }
  for (auto* values : {&without, &with, &quotients}) std::ranges::sort(*values);
  const auto quartile = [](const std::vector<double>& values, std::size_t at) { return values[values.size() * at / 4]; };
  bench.ratios.push_back({.subject = "module.StateManager",
                          .what = "1000 updates, one to disk behind / 1000",
                          .label = "B 4, H 8, K 64, V 64; quartiles",
                          .first_ms = quartile(with, 2),
                          .second_ms = quartile(without, 2),
                          .ratio = quartile(quotients, 2),
                          .least = quartile(quotients, 1),
                          .most = quartile(quotients, 3),
                          .allowed = allowed_with_checkpoints});
}

/// A transition as the product with its K x K matrix D - a b^T, which is what the summary calls the general form.
void transition_by_matrix(const DplrStep& step, AlignedFloats& S, std::vector<float>& A, std::vector<float>& next) {
  const std::int64_t K = states.K, V = states.V;
  for (std::int64_t head = 0; head < states.B * states.H; ++head) {
    const float *d = step.d.data() + head * K, *a = step.a.data() + head * K, *b = step.b.data() + head * K;
    for (std::int64_t i = 0; i < K; ++i)
      for (std::int64_t j = 0; j < K; ++j) A[static_cast<std::size_t>(i * K + j)] = (i == j ? d[i] : 0.0f) - a[i] * b[j];
    float* state = S.data() + head * K * V;
    cpu::product(K, V, K, {A.data(), K, 1}, state, V, cpu::Into::assign, next.data(), V);
    std::copy_n(next.begin(), K * V, state);
  }
}

} // namespace

void bench_modules(Bench& bench) {
  constexpr std::int64_t B = 4, T = 128, D = 512;
  for (const std::int64_t rank : {16, 64})
    for (const GateForm form : {GateForm::sigmoid, GateForm::softplus, GateForm::bounded}) {
      const Gating module{.D = D, .rank = rank, .H = 8, .K = 64, .form = form};
      const GatingParameters parameters = xavier_parameters(module, 1);
      const std::vector<float> x = numbers(B * T * D, 0, 1);
      std::vector<float> alpha(static_cast<std::size_t>(B * T * module.width()));
      against_figure(bench, "module.FineGrainedGating", fmt::format("{} forward, rank {}", name(form), rank),
                     "B 4, T 128, D 512, H 8, K 64", 2.35, 2.0 * static_cast<double>(B * T * rank * (D + module.width())), [&] {
                       gates(module, parameters, {B, T, x}, {alpha, {}});
                     });
      if (form == GateForm::sigmoid)
        floor_of_products(bench, fmt::format("rank {}", rank), "B 4, T 128, D 512, H 8, K 64", 2.35,
                          2.0 * static_cast<double>(B * T * rank * (D + module.width())));
    }

  const std::int64_t heads = states.B * states.H;
  const std::vector<float> alpha = numbers(heads * 64, 0.97f, 0.03f), k = numbers(heads * 64, 0, 0.125f), v = numbers(heads * 64, 0, 1),
                           beta(static_cast<std::size_t>(heads), 0.5f);
  const KdaStep kda{alpha, k, beta, v};
  const DplrStep general{alpha, k, k, k, v};
  const std::vector<float> drawn = numbers(states.elements(), 0, 1);
  // Rows begin where cache lines do: where they do not, every load of a whole register touches two, and what is compared takes longer.
  AlignedFloats state(drawn.begin(), drawn.end()), other = state;
  const char* label = "B 4, H 8, K 64, V 64";
  const double flops = 6.0 * static_cast<double>(states.elements());
  const std::vector<float> kept_whole(alpha.size(), 1.0f); // what only decays would end in subnormal numbers
  const KdaStep lasting{kept_whole, k, beta, v};
  against_figure(bench, "module.DPLRTransition", "transition", label, 1.30, flops, [&] { transition(states, lasting, state); });
  against_figure(bench, "module.DPLRTransition", "update", label, 0.66, flops, [&] { update(states, kda, state); });
  StateManager plain({.largest = states, .checkpoint_interval = 0});
  const StateTokens token{4, 1, alpha, k, beta, v};
  against_figure(bench, "module.StateManager", "update", label, 2.65, flops, [&] { plain.update(token); });
  overhead_of_checkpoints(bench, token, {});
  std::string folder = (std::filesystem::temp_directory_path() / "kdacheck-states-XXXXXX").string();
  if (!mkdtemp(folder.data())) throw FileTrouble("cannot make a temporary folder " + folder);
  overhead_of_checkpoints(bench, token, folder);
  overhead_of_writing_behind(bench, token, folder);
  std::filesystem::remove_all(folder);
  const auto hundred = [](const auto& step, AlignedFloats& S) {
    for (int i = 0; i < 100; ++i) update(states, step, S);
  };
  by_turns(
      bench, "module.DPLRTransition", "update, KDA's / general rank one, O(K V)", allowed_of_general, [&] { hundred(kda, state); },
      [&] { hundred(general, other); });
  const DplrStep growing_not{kept_whole, k, k, k, v};
  std::vector<float> A(64 * 64), next(64 * 64);
  by_turns(
      bench, "module.DPLRTransition", "transition, KDA's / K x K matrix, O(K^2 V)", allowed_of_general,
      [&] {
        for (int i = 0; i < 10; ++i) transition(states, lasting, state);
      },
      [&] {
        for (int i = 0; i < 10; ++i) transition_by_matrix(growing_not, other, A, next);
      });
}

} // namespace kdacheck
