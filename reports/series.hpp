#pragma once
// series.json: curves that single cases do not hold. It lies beside a run's report.json, and the page draws it.

#include "../properties/drift.hpp"
#include "context.hpp"
#include "transition_spectra.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kdacheck {

struct Series {
  Context context; ///< tier left empty
  std::int64_t longest = 0;
  std::vector<Drift> drift;
  std::vector<RegimeSpectra> spectra;
};

/// schema_version 1; context{commit, cpu, compiler, started, command, seed}; longest; drift[]{kernel, regime, lengths[][T, verdict,
/// bound_util, rms_rel_err, tensor, replay], windows[][token, largest, median]}; spectra[]{rule, regime, recipe, samples[][tau,
/// least, low, high, radius, radius_bound, norm, norm_bound, heuristic, outside, grows, within, false_alarm, silent]}.
std::string to_series_json(const Series&);

/// The series of a folder, or null where there is none. Throws std::invalid_argument with one sentence for a file that is not a
/// series of this schema version.
nlohmann::ordered_json read_series(const std::filesystem::path& folder);

/// How each kernel's error stood at the longest length, and what the spectra showed.
std::string to_text(const Series&);

/// 1 if a length failed or a spectrum left its proved bounds, 5 if no length passed, else 0.
int exit_status(const Series&);

} // namespace kdacheck
