#pragma once
// power.json and its table: what the gate, or a rule, catches of the planted faults.

#include "../properties/detection_limits.hpp"
#include "../properties/gate_power.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace kdacheck {

/// Keys of design section 8, faults[]{name, caught, caught_by[]{property, regime, seeds}}, and besides origin, what, seeds,
/// caught_seeds, cases, half (0 or 1, by a hash of the name), found (replay token of the case that caught it),
/// first_catch_seconds; correct[]{name, rejected, contract, cases, inconclusive, worst_bound_util (null of a rule),
/// replay[], agreement, regimes{name: cases}}: agreement, the cases that a law of agreement with the oracle decided;
/// legal[]: the same keys, and fault, label, reason: departures that the contract allows, which no test can refuse;
/// halves[]{half, faults, caught, cells, caught_by_cells}: see Half;
/// limits[]{contract, label, what, regime, exponent, relative, log2_relative_error, seeds}: the smallest relative error
/// 2^-exponent of `what` ("o", "one token of o", "input beta", "dq", ...) that is refused on every one of `seeds` seeds; null
/// ("Infinity" in the logarithm): none is.
std::string to_power_json(const Power&, const std::string& judged_by, std::span<const Limit> = {});

/// One line of power_seeds.jsonl: what one seed showed. `mark` names program and plan; lines of others are not read.
std::string power_seed_line(const std::string& mark, std::uint64_t seed, const Power&, double seconds);
std::map<std::uint64_t, Power> power_seeds(std::string_view text, const std::string& mark);

/// One line per fault, those that got through first; then the correct kernels, what the contracts allow, and the halves.
/// A rule has no bound, and its text no error / bound.
std::string to_text(const Power&, bool by_gate = true);

} // namespace kdacheck
