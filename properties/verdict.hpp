#pragma once
// What the gate says about one case, and where it looked.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kdacheck {

enum class Verdict : std::uint8_t {
  passed,
  failed_proved,      ///< error beyond what any kernel that keeps its contract could make
  failed_statistical, ///< beyond the probabilistic bound, confirmed with fresh noise
  failed_property,    ///< a law is broken
  inconclusive,       ///< the oracle's radius is not small against the bound, at the highest precision
  not_supported,      ///< outside the kernel's declared domain
  crashed,
  timed_out,
};
inline constexpr std::array all_verdicts{Verdict::passed,          Verdict::failed_proved, Verdict::failed_statistical,
                                         Verdict::failed_property, Verdict::inconclusive,  Verdict::not_supported,
                                         Verdict::crashed,         Verdict::timed_out};

/// Key of report.json's summary: "failed_proved".
std::string_view name(Verdict);
std::optional<Verdict> verdict_named(std::string_view);

/// True for every verdict that makes verify exit with status 1.
constexpr bool is_failure(Verdict v) {
  return v == Verdict::failed_proved || v == Verdict::failed_statistical || v == Verdict::failed_property || v == Verdict::crashed ||
         v == Verdict::timed_out;
}

/// Where: -1 in a field that does not apply. `tensor` is "o", "final_state", "dq", "dA_log", ...
struct Place {
  std::string tensor;
  std::int64_t sequence = -1, head = -1, token = -1, channel = -1, row = -1;
  std::int64_t chunk_position = -1; ///< token mod chunk
  bool operator==(const Place&) const = default;
};

/// "o: sequence 0, head 1, token 17 (position 1 of chunk 1), channel 5"
std::string to_text(const Place&);

/// Error figures in the field's names; a figure that was not computed is -1.
struct Metrics {
  double max_abs_err = -1, rms_rel_err = -1, token_rel_err_max = -1, ulp_max = -1;
  bool operator==(const Metrics&) const = default;
};

/// Result of checking one property on one case. bound_util = error / bound at the worst place (infinite for a
/// non-finite output or a broken bitwise law, 0 for a law that holds exactly).
struct Finding {
  Verdict verdict = Verdict::passed;
  double bound_util = 0;
  std::optional<Place> place;
  std::string detail; ///< one sentence; for not_supported the reason
  Metrics metrics;
  /// Arithmetic of the truth, where fp64 was not precise enough for this bound or, of the same case, another kernel's:
  /// "double_double", "226 bits".
  std::string oracle = {};
};

/// The graver of two findings: by verdict first, then by bound_util. Of an escalated oracle it says so whichever needed it.
Finding graver(Finding, Finding);

/// True if the first is graver than the second in that order. A NaN counts as the largest bound_util.
bool is_graver(const Finding&, const Finding&);

} // namespace kdacheck
