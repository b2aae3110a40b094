#include "machine_limits.hpp"

#include "../kernels/cpu/lanes.hpp"

#include <omp.h>

#include <algorithm>
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
  constexpr int chains = 10, rounds = 20000; // enough chains to hide the latency of two units
  double kept = 0;
  const double seconds = best_seconds(100, [&] { // short runs: a busy machine leaves some of them alone
    double sum = 0;
#pragma omp parallel reduction(+ : sum)
    {
      cpu::Lanes x[chains];
      for (int i = 0; i < chains; ++i) x[i] = cpu::broadcast(1.0f + 1e-3f * static_cast<float>(i));
      const cpu::Lanes factor = cpu::broadcast(0.999f), shift = cpu::broadcast(1e-3f);
      for (int round = 0; round < rounds; ++round)
#pragma GCC unroll 10
        for (int i = 0; i < chains; ++i) x[i] = cpu::multiply_add(x[i], factor, shift);
      for (const cpu::Lanes& lanes : x) sum += cpu::sum(lanes);
    }
    kept += sum;
  });
  const double flops = 2.0 * chains * cpu::lane_count * rounds * omp_get_max_threads();
  return kept == 0 ? 0 : flops / seconds;
}

} // namespace

MachineLimits measured_limits() { return {.copy_bytes_per_second = copy_rate(), .fp32_flops_per_second = flop_rate()}; }

} // namespace kdacheck
