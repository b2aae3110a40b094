#include "machine_limits.hpp"

#include <omp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <vector>

namespace kdacheck {
namespace {

template <class Work> double best_seconds(int repeats, const Work& work) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double copy_rate() {
  constexpr std::size_t bytes = std::size_t{256} << 20;
  std::vector<char> from(bytes, 1), to(bytes, 2);
  const double seconds = best_seconds(4, [&] {
#pragma omp parallel
    {
      const auto threads = static_cast<std::size_t>(omp_get_num_threads()), self = static_cast<std::size_t>(omp_get_thread_num());
      const std::size_t first = bytes / threads * self, last = self + 1 == threads ? bytes : bytes / threads * (self + 1);
      std::memcpy(to.data() + first, from.data() + first, last - first);
    }
  });
  return 2.0 * static_cast<double>(bytes) / seconds;
}

double flop_rate() {
  constexpr int lanes = 256, rounds = 200000; // 16 vectors of 16: enough to hide the latency of both units
  double kept = 0;
  const double seconds = best_seconds(4, [&] {
    double sum = 0;
#pragma omp parallel reduction(+ : sum)
    {
      std::array<float, lanes> x;
      for (int i = 0; i < lanes; ++i) x[static_cast<std::size_t>(i)] = 1.0f + 1e-3f * static_cast<float>(i);
      const float factor = 0.999f, shift = 1e-3f;
      for (int round = 0; round < rounds; ++round)
        for (float& value : x) value = value * factor + shift;
      for (const float value : x) sum += value;
    }
    kept += sum;
  });
  const double flops = 2.0 * lanes * rounds * omp_get_max_threads();
  return kept == 0 ? 0 : flops / seconds;
}

} // namespace

MachineLimits measured_limits() { return {.copy_bytes_per_second = copy_rate(), .fp32_flops_per_second = flop_rate()}; }

} // namespace kdacheck
