#include "bench.hpp"

#include "../kernels/kernel.hpp"
#include "../properties/cases/recipe.hpp"
#include "../properties/judge.hpp"
#include "../properties/run.hpp"
#include "../properties/selection.hpp"
#include "../reference/truth.hpp"
#include "commands.hpp"
#include "context.hpp"
#include "json_numbers.hpp"
#include "module_bench.hpp"
#include "oracle_bench.hpp"
#include "right_kernels.hpp"
#include "round_trip.hpp"
#include "whole_runs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"

namespace kdacheck {
namespace {

/// Times two things by turns, so that a busy machine slows both: the medians of each, and of their quotient.
template <class First, class Second>
BenchRatio compared(std::string subject, std::string what, std::string label, double allowed, int repeats, const First& first,
                    const Second& second) {
  std::vector<double> quotients, first_times, second_times;
  const auto timed = [](const auto& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  };
  first(), second(); // warm caches, pools and page tables
  for (int i = 0; i < repeats; ++i) {
    second_times.push_back(timed(second));
    first_times.push_back(timed(first));
    quotients.push_back(first_times.back() / second_times.back());
  }
  for (auto* values : {&quotients, &first_times, &second_times}) std::sort(values->begin(), values->end());
  const auto median = [](const std::vector<double>& values) { return values[values.size() / 2]; };
  BenchRatio ratio{.subject = std::move(subject),
                   .what = std::move(what),
                   .label = std::move(label),
                   .first_ms = median(first_times),
                   .second_ms = median(second_times),
                   .ratio = median(quotients),
                   .least = quotients.front(),
                   .most = quotients.back(),
                   .allowed = allowed};
  std::fprintf(stderr, "%s, %s: %.2f\n", ratio.subject.c_str(), ratio.what.c_str(), ratio.ratio);
  return ratio;
}

template <class Work> void time_into(BenchRow& row, int repeats, const Work& work) {
  work(); // warm caches, pools and page tables
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  row.median_ms = times[times.size() / 2];
  row.least_ms = times.front();
  row.most_ms = times.back();
}

Recipe benchmark_case(std::int64_t T, std::int64_t heads, std::int64_t K, std::int64_t V) {
  Recipe recipe;
  recipe.regime = "benchmark";
  recipe.shape = {.B = 1, .T = T, .H = heads, .HV = heads, .K = K, .V = V};
  recipe.options.scale = 1.0f / std::sqrt(static_cast<float>(K));
  recipe.gates = GatePattern::jitter;
  recipe.decay = 0.05f;
  recipe.decay_spread = 0.5f;
  recipe.state = StatePattern::gaussian;
  recipe.loss = LossPattern::everywhere;
  recipe.seed = 1;
  return recipe;
}

std::string label_of(const Shape& s) { return fmt::format("B {}, T {}, H {}, K {}, V {}", s.B, s.T, s.HV, s.K, s.V); }

double bytes_of(const Problem& problem, const Contract& contract, bool backward) {
  double bytes = 0;
  for (Input input : all_inputs)
    bytes += static_cast<double>(problem[input].size() * storage_bytes(format_of(input, problem.formats))) * (backward ? 2 : 1);
  const double o = static_cast<double>(problem.v.size() * storage_bytes(contract.output));
  const double state = static_cast<double>(problem.initial_state.size() * 4);
  return bytes + o + state;
}

/// Multiplications and additions of the chunk algebra: forward 6 K V + 4 C (K + V) per token and head; backward, which
/// recomputes, 16 K V + 11 C (K + V); the token recurrence 7 K V and 18 K V.
double flops_of(const Shape& s, const Contract& contract, bool backward) {
  const double KV = static_cast<double>(s.K * s.V), CKV = static_cast<double>(contract.chunk * (s.K + s.V));
  const bool tokens = contract.chunk == 1;
  const double each = backward ? (tokens ? 18 * KV : 16 * KV + 11 * CKV) : (tokens ? 7 * KV : 6 * KV + 4 * CKV);
  return each * static_cast<double>(s.B * s.T * s.HV);
}

void bench_kernels(Bench& bench, const std::vector<const Kernel*>& kernels) {
  const Recipe wanted = benchmark_case(2048, 2, 128, 128);
  for (const Kernel* kernel : kernels) {
    const Recipe recipe = fitted(wanted, kernel->contract);
    const Problem problem = make_problem(recipe, input_formats(kernel->contract));
    if (outside_domain(kernel->contract, problem)) continue;
    for (const bool backward : {false, true}) {
      if (backward && !kernel->backward) continue;
      BenchRow row{.kernel = kernel->name,
                   .what = backward ? "backward" : "forward",
                   .label = label_of(recipe.shape),
                   .bytes = bytes_of(problem, kernel->contract, backward),
                   .flops = flops_of(recipe.shape, kernel->contract, backward),
                   .token_heads = static_cast<double>(recipe.shape.B * recipe.shape.T * recipe.shape.HV)};
      time_into(row, bench.repeats, [&] { backward ? run_backward(*kernel, problem) : run_forward(*kernel, problem); });
      std::fprintf(stderr, "%s %s: %.2f ms\n", row.kernel.c_str(), row.what.c_str(), row.median_ms);
      bench.rows.push_back(row);
    }
  }
}

void bench_gate(Bench& bench) {
  const auto row = [&](std::string name, std::string what, const Shape& s, const auto& work) {
    BenchRow result{
        .kernel = std::move(name), .what = std::move(what), .label = label_of(s), .token_heads = static_cast<double>(s.B * s.T * s.HV)};
    time_into(result, bench.repeats, work);
    std::fprintf(stderr, "%s %s: %.2f ms\n", result.kernel.c_str(), result.what.c_str(), result.median_ms);
    bench.rows.push_back(result);
  };
  const Recipe large = benchmark_case(512, 2, 128, 128), small = benchmark_case(96, 2, 32, 32);
  const Problem quick = make_problem(small, {});
  row("generator", "make_problem", large.shape, [&] { make_problem(large, {}); });
  const Kernel& kernel = built_in_kernels().front();
  const Run run = run_forward(kernel, quick);
  row("gate", "truth, budget and comparison of a quick case", small.shape, [&] { Judge().forward(kernel.contract, quick, run); });
  Judge judge;
  row("gate", "comparison alone (truth and budget cached)", small.shape, [&] { judge.forward(kernel.contract, quick, run); });
  row("gate", "guarded call of " + kernel.name, small.shape, [&] { run_forward(kernel, quick); });
}

/// What a backward pass may cost in forward passes: 4 for a chunkwise fp32 kernel, 6 for the certified adjoint.
constexpr double allowed_of_kernel = 4, allowed_of_oracle = 6;

void compare_kernel(Bench& bench, const Kernel& kernel) {
  const Recipe recipe = fitted(benchmark_case(2048, 2, 128, 128), kernel.contract);
  const Problem problem = make_problem(recipe, input_formats(kernel.contract));
  if (!kernel.backward || outside_domain(kernel.contract, problem)) return;
  bench.ratios.push_back(compared(
      kernel.name, "backward / forward", label_of(recipe.shape), allowed_of_kernel, bench.repeats, [&] { run_backward(kernel, problem); },
      [&] { run_forward(kernel, problem); }));
}

void compare_oracles(Bench& bench) {
  const Recipe recipe = benchmark_case(512, 2, 128, 128);
  const Problem problem = make_problem(recipe, {});
  for (Arithmetic arithmetic : {Arithmetic::fp64, Arithmetic::double_double})
    bench.ratios.push_back(compared(
        "oracle." + std::string(name(arithmetic)), "gradients / forward", label_of(recipe.shape), allowed_of_oracle, bench.repeats,
        [&] { gradient_truth(problem, arithmetic); }, [&] { forward_truth(problem, arithmetic); }));
}

/// KDA by its own chunk kernel and by the general one, which is told a = beta k and b = k (.) alpha: the same problem.
void compare_specialised(Bench& bench) {
  constexpr double allowed = 1 / 1.8;
  const auto named = [](std::string_view name) { return std::ranges::find(built_in_kernels(), name, &Kernel::name); };
  const auto own = named("cpu.chunk16.fp32"), general = named("cpu.kda_via_dplr.chunk16.fp32");
  const Recipe recipe = benchmark_case(2048, 2, 64, 64);
  const Problem problem = make_problem(recipe, input_formats(own->contract));
  bench.ratios.push_back(compared(
      own->name, "forward / " + general->name, label_of(recipe.shape), allowed, bench.repeats, [&] { run_forward(*own, problem); },
      [&] { run_forward(*general, problem); }));
}

int margins_command(const BenchArguments& arguments) {
  MarginsPlan plan{.kernels = right_kernels(arguments.kernels), .regimes = {}, .seeds = arguments.seeds, .seconds = arguments.seconds};
  for (const Regime& regime : regimes()) plan.regimes.push_back(&regime);
  demand_room_for_folder(arguments.out);
  demand_room_for_file(arguments.out + "/bench.json");
  make_folder(arguments.out);
  Bench bench{.limits = measured_limits(), .threads = omp_get_max_threads(), .repeats = arguments.repeats, .rows = {}, .ratios = {}};
  bench.margins = measured_margins(plan, [](const std::string& text) { fmt::print(stderr, "{}\n", text); });
  std::fputs(margins_table(bench.margins).c_str(), stdout);
  write_atomically(arguments.out + "/bench.json", to_bench_json(bench));
  std::int64_t cases = 0, above = 0;
  for (const KernelMargin& margin : bench.margins) cases += margin.cases, above += margin.above;
  return cases == 0 ? 5 : above > 0 ? 1 : 0;
}

nlohmann::json json_of(const KernelMargin& margin) {
  nlohmann::json groups = nlohmann::json::array();
  for (Group group : all_groups) {
    const auto at = static_cast<std::size_t>(group);
    const Margin& of_group = margin.margin[at];
    if (of_group.groups == 0) continue;
    groups.push_back({{"group", name(group)},
                      {"groups", of_group.groups},
                      {"constant", least_factor(group)},
                      {"largest", of_group.largest},
                      {"where", margin.where[at]},
                      {"quantile_share", of_group.quantile_share},
                      {"quantile", of_group.quantile}});
  }
  return {{"kernel", margin.kernel},
          {"contract", margin.contract},
          {"direction", margin.backward ? "backward" : "forward"},
          {"cases", margin.cases},
          {"outside", margin.outside},
          {"above", margin.above},
          {"largest_bound_util", json_number(margin.largest_util)},
          {"seconds", margin.seconds},
          {"groups", groups}};
}

bool chunkwise_fp32(const Contract& c) { return c.chunk > 1 && c.operands == Format::fp32 && c.state == Format::fp32; }

} // namespace

std::string to_bench_json(const Bench& bench) {
  nlohmann::json rows = nlohmann::json::array();
  for (const BenchRow& row : bench.rows) {
    const double seconds = row.median_ms * 1e-3;
    rows.push_back({{"kernel", row.kernel},
                    {"what", row.what},
                    {"case", row.label},
                    {"median_ms", row.median_ms},
                    {"least_ms", row.least_ms},
                    {"most_ms", row.most_ms},
                    {"bytes", row.bytes},
                    {"flops", row.flops},
                    {"of_bandwidth", row.bytes / seconds / bench.limits.copy_bytes_per_second},
                    {"of_compute", row.flops / seconds / bench.limits.fp32_flops_per_second},
                    {"token_heads_per_second", row.token_heads / seconds}});
    if (row.asked_per_second > 0) rows.back()["asked_per_second"] = row.asked_per_second;
  }
  nlohmann::json ratios = nlohmann::json::array();
  for (const BenchRatio& r : bench.ratios)
    ratios.push_back({{"subject", r.subject},
                      {"what", r.what},
                      {"case", r.label},
                      {"first_ms", r.first_ms},
                      {"second_ms", r.second_ms},
                      {"ratio", r.ratio},
                      {"least", r.least},
                      {"most", r.most},
                      {"allowed", r.allowed}});
  nlohmann::json margins = nlohmann::json::array();
  for (const KernelMargin& margin : bench.margins)
    if (margin.cases > 0) margins.push_back(json_of(margin));
  const Context context = this_context();
  return nlohmann::json{
             {"schema_version", 1},
             {"context", {{"cpu", context.cpu}, {"compiler", context.compiler}, {"build", context.build}, {"commit", context.commit}}},
             {"threads", bench.threads},
             {"repeats", bench.repeats},
             {"copy_bytes_per_second", bench.limits.copy_bytes_per_second},
             {"fp32_flops_per_second", bench.limits.fp32_flops_per_second},
             {"rows", rows},
             {"ratios", ratios},
             {"margins", margins}}
             .dump(2) +
         "\n";
}

std::string to_text(const Bench& bench) {
  std::string text =
      fmt::format("copy {:.1f} GB/s, fp32 {:.1f} GFLOP/s, {} threads, median of {}\n\n{:<30} {:<46} {:<32} {:>10} {:>8} {:>8} {:>14}\n",
                  bench.limits.copy_bytes_per_second * 1e-9, bench.limits.fp32_flops_per_second * 1e-9, bench.threads, bench.repeats,
                  "what", "pass", "case", "median ms", "of copy", "of fp32", "token-heads/s");
  for (const BenchRow& row : bench.rows) {
    const double seconds = row.median_ms * 1e-3;
    const auto share = [](double value) { return value > 0 ? fmt::format("{:.1f} %", 100 * value) : std::string("-"); };
    text += fmt::format("{:<30} {:<46} {:<32} {:>10.3f} {:>8} {:>8} {:>14}{}\n", row.kernel, row.what, row.label, row.median_ms,
                        share(row.bytes / seconds / bench.limits.copy_bytes_per_second),
                        share(row.flops / seconds / bench.limits.fp32_flops_per_second),
                        row.token_heads > 0 ? fmt::format("{:.0f}", row.token_heads / seconds) : "-",
                        row.asked_per_second > 0 ? fmt::format("  of {:.0f} asked", row.asked_per_second) : "");
  }
  if (!bench.ratios.empty())
    text +=
        fmt::format("\n{:<30} {:<46} {:<32} {:>10} {:>17} {:>8}\n", "side by side", "what", "case", "ratio", "least .. most", "allowed");
  for (const BenchRatio& r : bench.ratios)
    text += fmt::format("{:<30} {:<46} {:<32} {:>10.4g} {:>17} {:>8.3g}\n", r.subject, r.what, r.label, r.ratio,
                        fmt::format("{:.4g} .. {:.4g}", r.least, r.most), r.allowed);
  return text;
}

int bench_command(const BenchArguments& arguments) {
  if (arguments.device == "cuda") return bench_device_command(arguments);
  if (arguments.margins) return margins_command(arguments);
  const auto kernels = matching<Kernel>("kernel", arguments.kernels, built_in_kernels());
  demand_room_for_folder(arguments.out);
  demand_room_for_file(arguments.out + "/bench.json");
  make_folder(arguments.out);
  Bench bench{.limits = measured_limits(), .threads = omp_get_max_threads(), .repeats = arguments.repeats, .rows = {}, .ratios = {}};
  const bool chosen_parts = arguments.only_round_trips || arguments.only_modules || arguments.only_oracle || arguments.long_oracle > 0;
  const bool everything = !chosen_parts && arguments.kernels.empty();
  if (!chosen_parts) {
    bench_kernels(bench, kernels);
    for (const Kernel* kernel : kernels)
      if (chunkwise_fp32(kernel->contract)) compare_kernel(bench, *kernel);
  }
  if (everything) compare_oracles(bench);
  if (everything || arguments.only_oracle) bench_oracle(bench);
  if (arguments.long_oracle > 0) bench_long_oracle(bench, arguments.long_oracle);
  if (everything) {
    bench_gate(bench);
    bench_whole_runs(bench);
  }
  if (everything || arguments.only_modules) {
    bench_modules(bench);
    compare_specialised(bench);
  }
  if (everything || arguments.only_round_trips) bench_round_trips(bench);
  if (bench.rows.empty()) {
    std::fprintf(stderr, "kdacheck: no selected kernel supports the benchmark's case\n");
    return 5;
  }
  std::fputs(to_text(bench).c_str(), stdout);
  write_atomically(arguments.out + "/bench.json", to_bench_json(bench));
  return 0;
}

} // namespace kdacheck
