#include "oracle_bench.hpp"

#include "../properties/cases/recipe.hpp"
#include "../properties/team.hpp"
#include "../reference/certified_tiers.hpp"
#include "../reference/oracle.hpp"
#include "../reference/truth.hpp"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <vector>

namespace kdacheck {
namespace {

constexpr std::int64_t size = 128;
constexpr double least_seconds = 0.05;                                   ///< of processor time behind each of a row's timings
constexpr double asked_of_fp64 = 250000, asked_of_double_double = 25000; ///< token-heads per second, forward with the bound

Problem one_head(std::int64_t T, GateForm gate) {
  Recipe recipe;
  recipe.regime = "benchmark";
  recipe.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = size, .V = size};
  recipe.options.scale = 1 / std::sqrt(static_cast<float>(size));
  recipe.options.gate = gate;
  recipe.gates = gate == GateForm::softplus ? GatePattern::published_init : GatePattern::jitter;
  recipe.gate_model = gate;
  recipe.decay = gate == GateForm::softplus ? 1 : 0.05f;
  recipe.decay_spread = 0.5f;
  recipe.loss = LossPattern::everywhere;
  recipe.seed = 1;
  return make_problem(recipe, {});
}

double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

struct Timer {
  Bench& bench;

  void operator()(std::string arithmetic, std::string pass, std::int64_t T, double asked, const std::function<void()>& work) const {
    std::vector<double> times;
    work(); // warm caches, pools and page tables
    for (int i = 0; i < bench.repeats; ++i) {
      const double start = processor_seconds();
      int passes = 0;
      double elapsed = 0;
      do {
        work();
        ++passes;
        elapsed = processor_seconds() - start;
      } while (elapsed < least_seconds);
      times.push_back(1e3 * elapsed / passes);
    }
    std::ranges::sort(times);
    bench.rows.push_back({.kernel = "oracle." + arithmetic,
                          .what = std::move(pass),
                          .label = fmt::format("T {}, K = V = {}, one core", T, size),
                          .median_ms = times[times.size() / 2],
                          .least_ms = times.front(),
                          .most_ms = times.back(),
                          .token_heads = static_cast<double>(T),
                          .asked_per_second = asked});
    const BenchRow& row = bench.rows.back();
    std::fprintf(stderr, "%s %s: %.0f token-heads/s\n", row.kernel.c_str(), row.what.c_str(), 1e3 * row.token_heads / row.median_ms);
  }
};

} // namespace

void bench_oracle(Bench& bench) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Timer time{bench};
  const Problem plain = one_head(512, GateForm::log_decay), raw = one_head(512, GateForm::softplus),
                small = one_head(8, GateForm::log_decay);
  const auto tier = [&](Arithmetic arithmetic, double asked) {
    const std::string label(name(arithmetic));
    time(label, "forward with bound", plain.shape.T, asked, [&] { forward_truth(plain, arithmetic); });
    time(label, "forward with bound, softplus gate", raw.shape.T, 0, [&] { forward_truth(raw, arithmetic); });
    time(label, "gradients with bound", plain.shape.T, 0, [&] { gradient_truth(plain, arithmetic); });
  };
  tier(Arithmetic::fp64, asked_of_fp64);
  tier(Arithmetic::double_double, asked_of_double_double);
  for (int bits : {113, 226})
    time(fmt::format("mpfr {} bits", bits), "forward with bound", small.shape.T, 0,
         [&] { forward_truth(small, Arithmetic::multiprecision, bits); });
  time("cpp_bin_float 256 bits", "forward with bound", small.shape.T, 0, [&] {
    Truth truth;
    certified::forward_cpp_bin_float(small, truth);
  });
  for (NumberType type : all_number_types)
    time(std::string(name(type)), "forward, plain, no bound", small.shape.T, 0, [&] { evaluate(small, type); });
  omp_set_num_threads(threads);
}

void bench_long_oracle(Bench& bench, int heads) {
  constexpr std::int64_t T = 65536;
  const Problem head = one_head(T, GateForm::log_decay);
  for (const Arithmetic arithmetic : {Arithmetic::fp64, Arithmetic::double_double}) {
    const auto start = std::chrono::steady_clock::now();
    share_out(static_cast<std::size_t>(heads), 0, [&](std::size_t) { forward_truth(head, arithmetic); });
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    bench.rows.push_back({.kernel = "oracle." + std::string(name(arithmetic)),
                          .what = "forward with bound",
                          .label = fmt::format("T {}, {} heads, {} cores", T, heads, thread_count(0)),
                          .median_ms = ms,
                          .least_ms = ms,
                          .most_ms = ms,
                          .token_heads = static_cast<double>(T) * heads});
    std::fprintf(stderr, "%s, %s: %.1f s\n", bench.rows.back().kernel.c_str(), bench.rows.back().label.c_str(), ms * 1e-3);
  }
}

} // namespace kdacheck
