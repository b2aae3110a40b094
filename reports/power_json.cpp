#include "power_json.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace kdacheck {
namespace {

std::string_view how(const FaultPower& fault) {
  if (fault.cases == 0) return "not run";
  return fault.caught() ? "caught" : fault.caught_seeds > 0 ? "sometimes" : "GOT THROUGH";
}

} // namespace

std::string to_power_json(const Power& power, const std::string& judged_by) {
  nlohmann::json faults = nlohmann::json::array(), correct = nlohmann::json::array();
  for (const FaultPower& fault : power.faults) {
    nlohmann::json cells = nlohmann::json::array();
    for (const auto& [cell, seeds] : fault.caught_by)
      cells.push_back({{"property", cell.first}, {"regime", cell.second}, {"seeds", seeds}});
    faults.push_back({{"name", fault.name},
                      {"caught", fault.caught()},
                      {"caught_by", cells},
                      {"origin", fault.origin},
                      {"what", fault.what},
                      {"seeds", fault.seeds},
                      {"caught_seeds", fault.caught_seeds},
                      {"cases", fault.cases},
                      {"first_catch_seconds", fault.first_catch_seconds}});
  }
  for (const CorrectPower& kernel : power.correct)
    correct.push_back({{"name", kernel.name},
                       {"rejected", kernel.rejected},
                       {"contract", kernel.contract},
                       {"cases", kernel.cases},
                       {"worst_bound_util", kernel.worst_bound_util},
                       {"replay", kernel.first_rejection}});
  return nlohmann::json{{"schema_version", 1}, {"judged_by", judged_by}, {"faults", faults}, {"correct", correct}}.dump(2) + "\n";
}

std::string to_text(const Power& power) {
  std::vector<const FaultPower*> order;
  for (const FaultPower& fault : power.faults) order.push_back(&fault);
  std::stable_sort(order.begin(), order.end(), [](const FaultPower* x, const FaultPower* y) { return x->caught() < y->caught(); });
  std::string text = fmt::format("{:<34} {:<12} {:>7} {:>6}  {}\n", "fault", "", "seeds", "cases", "caught by (property on regime)");
  for (const FaultPower* fault : order) {
    std::string cells;
    std::size_t shown = 0;
    for (const auto& [cell, seeds] : fault->caught_by)
      if (shown++ < 2) cells += (cells.empty() ? "" : "; ") + cell.first + " on " + cell.second;
    if (shown > 2) cells += fmt::format("; {} more", shown - 2);
    text += fmt::format("{:<34} {:<12} {:>7} {:>6}  {}\n", fault->name, how(*fault),
                        fmt::format("{}/{}", fault->caught_seeds, fault->seeds), fault->cases, cells);
  }
  const auto caught = std::count_if(power.faults.begin(), power.faults.end(), [](const FaultPower& fault) { return fault.caught(); });
  text += fmt::format("\n{} of {} planted faults caught on every seed\n\n{:<34} {:>8} {:>8}  {}\n", caught, power.faults.size(),
                      "correct kernel", "refused", "cases", "largest error / bound");
  for (const CorrectPower& kernel : power.correct)
    text += fmt::format("{:<34} {:>8} {:>8}  {:.2f} {}\n", kernel.name, kernel.rejected, kernel.cases, kernel.worst_bound_util,
                        kernel.first_rejection);
  return text;
}

} // namespace kdacheck
