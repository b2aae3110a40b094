#pragma once
// power.json and its table: what the gate, or a rule, catches of the planted faults.

#include "../properties/gate_power.hpp"

#include <string>

namespace kdacheck {

/// Keys of design section 8: faults[]{name, caught, caught_by[]{property, regime, seeds}} and, besides, origin, what,
/// seeds, caught_seeds, cases, first_catch_seconds; correct[]{name, rejected, contract, cases, worst_bound_util, replay}.
std::string to_power_json(const Power&, const std::string& judged_by);

/// One line per fault, those that got through first; then the correct kernels.
std::string to_text(const Power&);

} // namespace kdacheck
