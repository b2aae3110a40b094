// The planted faults in two halves: what is tuned on one is tried on the other.

#include "gate_power.hpp"

#include <algorithm>
#include <set>

namespace kdacheck {
namespace {

using Cell = std::pair<std::string, std::string>;

/// Cells that catch every fault of a half that the gate caught, each the one that catches most of what is left.
std::set<Cell> tuned_on(const Power& power, int half) {
  std::vector<const FaultPower*> left;
  for (const FaultPower& fault : power.faults)
    if (half_of(fault.name) == half && !fault.caught_by.empty()) left.push_back(&fault);
  std::set<Cell> chosen;
  while (!left.empty()) {
    std::map<Cell, std::size_t> catches;
    for (const FaultPower* fault : left)
      for (const auto& [cell, seeds] : fault->caught_by) ++catches[cell];
    const auto best = std::ranges::max_element(catches, {}, [](const auto& entry) { return entry.second; })->first;
    chosen.insert(best);
    std::erase_if(left, [&](const FaultPower* fault) { return fault->caught_by.contains(best); });
  }
  return chosen;
}

} // namespace

int half_of(std::string_view fault) {
  std::uint32_t hash = 2166136261u; // FNV-1a
  for (const unsigned char c : fault) hash = (hash ^ c) * 16777619u;
  return static_cast<int>(hash >> 16 & 1u);
}

std::array<Half, 2> halves(const Power& power) {
  std::array<Half, 2> result;
  const std::array<std::set<Cell>, 2> cells{tuned_on(power, 0), tuned_on(power, 1)};
  for (std::size_t half = 0; half < 2; ++half) result[half].cells = cells[1 - half].size();
  for (const FaultPower& fault : power.faults) {
    const auto half = static_cast<std::size_t>(half_of(fault.name));
    ++result[half].faults;
    result[half].caught += fault.caught() ? 1 : 0;
    result[half].caught_by_cells +=
        std::ranges::any_of(fault.caught_by, [&](const auto& entry) { return cells[1 - half].contains(entry.first); }) ? 1 : 0;
  }
  return result;
}

} // namespace kdacheck
