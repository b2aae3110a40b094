// Times of the modules at the sizes of the project's issue, on all threads that OpenMP has.
//
//   module_throughput [repetitions]

#include "../gating.hpp"
#include "../mla.hpp"
#include "../spectral_monitor.hpp"
#include "../state_manager.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fmt/core.h>
#include <vector>

namespace {

using namespace kdacheck;
using namespace kdacheck::modules;

/// Least and median wall time of some calls, in milliseconds.
template <class Work> void report(const char* name, int repetitions, Work work) {
  std::vector<double> milliseconds;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    milliseconds.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::sort(milliseconds);
  fmt::print("{:<52} least {:8.4f} ms   median {:8.4f} ms\n", name, milliseconds.front(), milliseconds[milliseconds.size() / 2]);
}

std::vector<float> numbers(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(static_cast<double>(i * 7919 % 2001) / 1000 - 1);
  return values;
}

void measure_gating(int repetitions) {
  constexpr std::int64_t B = 4, T = 128;
  for (std::int64_t rank : {16, 64})
    for (GateForm form : {GateForm::sigmoid, GateForm::softplus, GateForm::bounded}) {
      const Gating module{.D = 512, .rank = rank, .H = 8, .K = 64, .form = form};
      const GatingParameters parameters = xavier_parameters(module, 1);
      const std::vector<float> x = numbers(B * T * module.D), d = numbers(B * T * module.width());
      std::vector<float> alpha(d.size());
      const std::string label = fmt::format("gating {} B4 T128 D512 H8 K64 rank {}", name(form), rank);
      report((label + " forward").c_str(), repetitions, [&] { gates(module, parameters, {B, T, x}, {alpha, {}}); });
      report((label + " backward").c_str(), repetitions / 4 + 1, [&] { gates_backward(module, parameters, {B, T, x}, {d, {}}); });
    }
}

std::vector<float> decays(std::int64_t count) {
  std::vector<float> values = numbers(count);
  for (float& x : values) x = 0.9f + 0.05f * x;
  return values;
}

void measure_transition(int repetitions) {
  const StateShape shape{4, 8, 64, 64};
  const std::int64_t heads = shape.B * shape.H;
  const std::vector<float> alpha = decays(heads * 64), v = numbers(heads * 64), beta(static_cast<std::size_t>(heads), 0.5f);
  std::vector<float> k = numbers(heads * 64), state = numbers(shape.elements());
  for (float& x : k) x *= 0.125f;
  const KdaStep kda{alpha, k, beta, v};
  const DplrStep general{alpha, k, k, k, v};
  report("transition B4 H8 K64 V64", repetitions, [&] { transition(shape, kda, state); });
  report("update", repetitions, [&] { update(shape, kda, state); });
  report("general transition", repetitions, [&] { transition(shape, general, state); });
  report("general update", repetitions, [&] { update(shape, general, state); });
  SpectralMonitor monitor(shape, 64);
  report("monitor", repetitions, [&] { monitor.observe(kda); });
}

/// A thousand steps one by one, with and without the checkpoint of the default interval.
void measure_states(int repetitions) {
  const StateShape shape{4, 8, 64, 64};
  const std::int64_t heads = shape.B * shape.H;
  const std::vector<float> alpha = decays(heads * 64), v = numbers(heads * 64), beta(static_cast<std::size_t>(heads), 0.5f);
  std::vector<float> k = numbers(heads * 64);
  for (float& x : k) x *= 0.125f;
  const StateTokens token{4, 1, alpha, k, beta, v};
  for (std::int64_t interval : {0, 1000}) {
    StateManager manager({.largest = shape, .checkpoint_interval = interval});
    const std::string label = fmt::format("1000 state updates, a checkpoint every {}", interval);
    report(label.c_str(), repetitions / 20 + 1, [&] {
      for (int i = 0; i < 1000; ++i) manager.update(token);
    });
  }
}

/// One token behind a long cache, in the latent space and with keys and values made again; by turns in one process.
void measure_latent_decode(int repetitions) {
  constexpr std::int64_t past = 1024;
  Mla layer{.D = 512, .H = 8, .K = 128, .V = 128, .K_shared = 64, .rank = 512};
  const MlaParameters p = initial_parameters(layer, 1);
  const std::vector<float> prompt = numbers(past * layer.D), x = numbers(layer.D);
  MlaCache filled;
  mla(layer, p, {.B = 1, .T = past, .x = prompt}, filled);
  for (const bool absorb : {true, false, true, false}) {
    layer.absorb = absorb;
    MlaCache cache = filled;
    const char* label = absorb ? "MLA decode, 1024 cached, in the latent space" : "MLA decode, 1024 cached, keys and values made again";
    report(label, repetitions / 20 + 1, [&] { mla(layer, p, {.B = 1, .T = 1, .x = x}, cache); });
  }
}

} // namespace

int main(int count, char** arguments) {
  const int repetitions = count > 1 ? std::atoi(arguments[1]) : 200;
  measure_transition(repetitions > 0 ? repetitions : 1);
  measure_states(repetitions > 0 ? repetitions : 1);
  measure_gating(repetitions > 0 ? repetitions : 1);
  measure_latent_decode(repetitions > 0 ? repetitions : 1);
}
