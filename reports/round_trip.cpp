#include "round_trip.hpp"

#include "../kernels/plugin/kdacheck_plugin.h"
#include "../kernels/plugin/subprocess_kernels.hpp"
#include "../properties/cases/recipe.hpp"
#include "../properties/run.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace kdacheck {
namespace {

constexpr int calls_per_repeat = 40;

kdacheck_tensor tensor_of(const TensorView& view) {
  kdacheck_tensor tensor{};
  if (!view) return tensor;
  tensor.data = view.data;
  tensor.format = static_cast<std::int32_t>(view.format);
  std::copy(view.shape.begin(), view.shape.end(), tensor.shape);
  std::copy(view.stride.begin(), view.stride.end(), tensor.stride);
  return tensor;
}

kdacheck_inputs inputs_of(const Inputs& inputs) {
  kdacheck_inputs in{};
  const Shape& s = inputs.shape;
  in.B = s.B, in.T = s.T, in.H = s.H, in.HV = s.HV, in.K = s.K, in.V = s.V, in.N = inputs.N();
  in.scale = inputs.options.scale;
  in.q = tensor_of(inputs[Input::q]), in.k = tensor_of(inputs[Input::k]), in.v = tensor_of(inputs[Input::v]);
  in.g = tensor_of(inputs[Input::g]), in.beta = tensor_of(inputs[Input::beta]);
  in.initial_state = tensor_of(inputs[Input::initial_state]);
  return in;
}

/// The example that is linked into this program, called as the child process calls it.
Kernel in_this_process(const Kernel& through_child) {
  const kdacheck_kernel& example = kdacheck_plugin(KDACHECK_PLUGIN_VERSION)->kernels[0];
  Kernel kernel = through_child;
  kernel.workspace_bytes = [&example](const Inputs& inputs, bool) {
    const kdacheck_inputs in = inputs_of(inputs);
    return example.workspace_bytes(&in, 0);
  };
  kernel.forward = [&example](const Inputs& inputs, const Outputs& outputs, std::span<std::byte> workspace) {
    const kdacheck_inputs in = inputs_of(inputs);
    const kdacheck_outputs out{tensor_of(outputs.o), tensor_of(outputs.final_state)};
    char why[64] = "";
    if (example.forward(&in, &out, workspace.data(), workspace.size(), why, sizeof why) != 0) throw Refused(why);
  };
  return kernel;
}

Problem round_trip_case() {
  Recipe recipe;
  recipe.regime = "benchmark";
  recipe.shape = {.B = 1, .T = 64, .H = 1, .HV = 1, .K = 64, .V = 64};
  recipe.options.scale = 0.125f;
  recipe.gates = GatePattern::jitter;
  recipe.decay = 0.05f;
  recipe.decay_spread = 0.5f;
  recipe.state = StatePattern::gaussian;
  recipe.seed = 1;
  return make_problem(recipe, {});
}

double milliseconds_of(const Kernel& kernel, const Problem& problem) {
  const auto start = std::chrono::steady_clock::now();
  const Run run = run_forward(kernel, problem);
  const double spent = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  if (run.refused) throw std::runtime_error(kernel.name + " refused the benchmark's case: " + *run.refused);
  return spent;
}

void append(Bench& bench, std::string kernel, std::string what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  bench.rows.push_back({.kernel = std::move(kernel),
                        .what = std::move(what),
                        .label = "B 1, T 64, H 1, K 64, V 64",
                        .median_ms = times[times.size() / 2],
                        .least_ms = times.front(),
                        .most_ms = times.back(),
                        .token_heads = 64});
  const BenchRow& row = bench.rows.back();
  std::fprintf(stderr, "%s %s: %.3f ms\n", row.kernel.c_str(), row.what.c_str(), row.median_ms);
}

} // namespace

void bench_round_trips(Bench& bench) {
  const Problem problem = round_trip_case();
  const int calls = calls_per_repeat * bench.repeats;
  const Kernel child = plugin_kernels(KDACHECK_EXAMPLE_PLUGIN).at(0), here = in_this_process(child);
  std::vector<double> in_process, through_child, added;
  for (int i = -calls_per_repeat; i < calls; ++i) { // the first ones warm up
    const double one = milliseconds_of(here, problem), other = milliseconds_of(child, problem);
    if (i < 0) continue;
    in_process.push_back(one), through_child.push_back(other), added.push_back(other - one);
  }
  // what other programs take of the machine only ever adds: two processes by turns wait for it more often than one
  const double fastest = std::ranges::min(through_child) - std::ranges::min(in_process);
  append(bench, child.name, "guarded call in this process", std::move(in_process));
  append(bench, child.name, "guarded call through the child process", std::move(through_child));
  append(bench, "route.c", "what the child process adds to a call", std::move(added));
  append(bench, "route.c", "what it adds, fastest call less fastest call", {fastest});
  try {
    const Kernel python = python_kernels("kdacheck.round_trip:zeros").at(0);
    std::vector<double> times;
    for (int i = -calls_per_repeat; i < calls; ++i) {
      const double one = milliseconds_of(python, problem);
      if (i >= 0) times.push_back(one);
    }
    append(bench, "route.python", "guarded call of a function that does nothing", std::move(times));
  } catch (const PluginTrouble& trouble) {
    std::fprintf(stderr, "not measured: the Python route: %s\n", trouble.what());
  }
}

} // namespace kdacheck
