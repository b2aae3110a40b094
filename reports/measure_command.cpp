#include "../kernels/plugin/broken_law.hpp"
#include "../properties/selection.hpp"
#include "../properties/team.hpp"
#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "commands.hpp"
#include "series.hpp"

#include <cstdio>

namespace kdacheck {
namespace {

constexpr std::size_t samples_per_regime = 24;

/// A kernel that takes its process down, or does not answer, has no lengths but this one.
Drift measured(const Kernel& kernel, const Regime& regime, const MeasureArguments& arguments) {
  const auto ended = [&](Verdict verdict, const char* sentence) {
    const Recipe recipe = drift_recipe(kernel, regime, arguments.seed, arguments.longest);
    return Drift{.kernel = kernel.name,
                 .regime = regime.name,
                 .lengths = {{.T = recipe.shape.T,
                              .finding = {.verdict = verdict, .place = {}, .detail = sentence, .metrics = {}},
                              .replay = replay_token({kernel.name, drift_law, recipe})}},
                 .windows = {}};
  };
  try {
    return measure_drift(kernel, regime, arguments.seed, arguments.longest);
  } catch (const KernelCrashed& crash) {
    return ended(Verdict::crashed, crash.what());
  } catch (const KernelTimedOut& late) {
    return ended(Verdict::timed_out, late.what());
  } catch (const KernelBrokeLaw& law) {
    return ended(Verdict::failed_property, law.what());
  }
}

} // namespace

int measure_command(const MeasureArguments& arguments) {
  const std::vector<Kernel> all = kernels_of(arguments.sources);
  const auto kernels = matching<Kernel>("kernel", arguments.kernels, all);
  const auto chosen = matching<Regime>("regime", arguments.regimes.empty() ? drift_regimes() : arguments.regimes, regimes());
  Series series{.context = this_context(), .longest = arguments.longest, .drift = {}, .spectra = {}};
  series.context.command = arguments.command;
  series.context.seed = arguments.seed;
  demand_room_for_folder(arguments.out);
  demand_room_for_file(arguments.out + "/series.json");
  make_folder(arguments.out);
  series.spectra.resize(regimes().size());
  share_out(series.spectra.size(), arguments.threads,
            [&](std::size_t i) { series.spectra[i] = measure_spectra(regimes()[i], arguments.seed, samples_per_regime); });
  series.drift.resize(kernels.size() * chosen.size());
  share_out(series.drift.size(), arguments.threads, [&](std::size_t i) {
    series.drift[i] = measured(*kernels[i / chosen.size()], *chosen[i % chosen.size()], arguments);
    std::fprintf(stderr, "%s on %s: measured\n", series.drift[i].kernel.c_str(), series.drift[i].regime.c_str());
  });
  write_atomically(arguments.out + "/series.json", to_series_json(series));
  std::fputs(to_text(series).c_str(), stdout);
  std::printf("series in %s/series.json: `report %s` draws it, once `verify --out` of the same folder has run\n", arguments.out.c_str(),
              arguments.out.c_str());
  return exit_status(series);
}

} // namespace kdacheck
