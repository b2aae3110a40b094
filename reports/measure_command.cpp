#include "../properties/selection.hpp"
#include "../reference/atomic_file.hpp"
#include "commands.hpp"
#include "series.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <thread>

namespace kdacheck {
namespace {

constexpr std::size_t samples_per_regime = 24;

/// Does work(i) for every i below count, on as many threads, each with one OpenMP thread of its own.
template <class Work> void for_all(std::size_t count, int threads, const Work& work) {
  std::atomic<std::size_t> next{0};
  const auto take = [&] {
    omp_set_num_threads(1);
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> team;
  for (int i = 0; i < threads; ++i) team.emplace_back(take);
}

} // namespace

int measure_command(const MeasureArguments& arguments) {
  const std::vector<Kernel> all = kernels_of(arguments.sources);
  const auto kernels = matching<Kernel>("kernel", arguments.kernels, all);
  const auto chosen = matching<Regime>("regime", arguments.regimes.empty() ? drift_regimes() : arguments.regimes, regimes());
  Series series{.context = this_context(), .longest = arguments.longest, .drift = {}, .spectra = {}};
  series.context.command = arguments.command;
  series.context.seed = arguments.seed;
  make_folder(arguments.out);
  const int threads = arguments.threads > 0 ? arguments.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  series.spectra.resize(regimes().size());
  for_all(series.spectra.size(), threads,
          [&](std::size_t i) { series.spectra[i] = measure_spectra(regimes()[i], arguments.seed, samples_per_regime); });
  series.drift.resize(kernels.size() * chosen.size());
  for_all(series.drift.size(), threads, [&](std::size_t i) {
    series.drift[i] = measure_drift(*kernels[i / chosen.size()], *chosen[i % chosen.size()], arguments.seed, arguments.longest);
    std::fprintf(stderr, "%s on %s: measured\n", series.drift[i].kernel.c_str(), series.drift[i].regime.c_str());
  });
  write_atomically(arguments.out + "/series.json", to_series_json(series));
  std::fputs(to_text(series).c_str(), stdout);
  std::printf("series in %s/series.json: `report %s` draws it\n", arguments.out.c_str(), arguments.out.c_str());
  return exit_status(series);
}

} // namespace kdacheck
