#include "power_json.hpp"

#include "json_numbers.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdacheck {
namespace {

std::string_view how(const FaultPower& fault) {
  if (fault.cases == 0) return "not run";
  return fault.caught() ? "caught" : fault.caught_seeds > 0 ? "sometimes" : "GOT THROUGH";
}

std::string first(const std::vector<std::string>& tokens) { return tokens.empty() ? "" : tokens.front(); }

using Json = nlohmann::ordered_json;

Json json_of(const CorrectPower& kernel) {
  return {{"name", kernel.name},
          {"rejected", kernel.rejected},
          {"contract", kernel.contract},
          {"cases", kernel.cases},
          {"worst_bound_util", json_number(kernel.worst_bound_util)},
          {"inconclusive", kernel.inconclusive},
          {"replay", kernel.rejections},
          {"agreement", kernel.agreement},
          {"regimes", kernel.cases_of_regime}};
}

CorrectPower correct_from(const Json& json) {
  return {.name = json.at("name"),
          .contract = json.at("contract"),
          .cases = json.at("cases"),
          .rejected = json.at("rejected"),
          .inconclusive = json.at("inconclusive"),
          .worst_bound_util = number_of(json.at("worst_bound_util")),
          .rejections = json.at("replay"),
          .agreement = json.at("agreement"),
          .cases_of_regime = json.at("regimes")};
}

Json json_of(const Power& power) {
  Json faults = Json::array(), correct = Json::array(), legal = Json::array();
  for (const FaultPower& fault : power.faults) {
    Json cells = Json::array();
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
                      {"half", half_of(fault.name)},
                      {"found", fault.found},
                      {"first_catch_seconds", json_number(fault.first_catch_seconds)}});
  }
  for (const CorrectPower& kernel : power.correct) correct.push_back(json_of(kernel));
  for (const LegalPower& each : power.legal) {
    Json entry = json_of(each.kernel);
    entry["fault"] = each.fault, entry["label"] = each.label, entry["reason"] = each.reason;
    legal.push_back(std::move(entry));
  }
  return {{"faults", faults}, {"correct", correct}, {"legal", legal}};
}

Power power_from(const Json& json) {
  Power power;
  for (const Json& entry : json.at("faults")) {
    FaultPower fault{.name = entry.at("name"),
                     .origin = entry.at("origin"),
                     .what = entry.at("what"),
                     .seeds = entry.at("seeds"),
                     .caught_seeds = entry.at("caught_seeds"),
                     .caught_by = {},
                     .first_catch_seconds = number_of(entry.at("first_catch_seconds")),
                     .cases = entry.at("cases"),
                     .found = entry.at("found")};
    for (const Json& cell : entry.at("caught_by")) fault.caught_by[{cell.at("property"), cell.at("regime")}] = cell.at("seeds");
    power.faults.push_back(std::move(fault));
  }
  for (const Json& entry : json.at("correct")) power.correct.push_back(correct_from(entry));
  for (const Json& entry : json.at("legal"))
    power.legal.push_back(
        {.kernel = correct_from(entry), .fault = entry.at("fault"), .label = entry.at("label"), .reason = entry.at("reason")});
  return power;
}

} // namespace

std::string to_power_json(const Power& power, const std::string& judged_by, std::span<const Limit> limits) {
  Json json = json_of(power);
  if (judged_by != "gate")
    for (Json& kernel : json["correct"]) kernel["worst_bound_util"] = nullptr; // a rule has no bound
  json["schema_version"] = 1;
  json["judged_by"] = judged_by;
  json["halves"] = Json::array();
  const auto both = halves(power);
  for (std::size_t half = 0; half < both.size(); ++half)
    json["halves"].push_back({{"half", half},
                              {"faults", both[half].faults},
                              {"caught", both[half].caught},
                              {"cells", both[half].cells},
                              {"caught_by_cells", both[half].caught_by_cells}});
  json["limits"] = Json::array();
  for (const Limit& limit : limits)
    json["limits"].push_back(
        {{"contract", limit.contract},
         {"label", limit.label},
         {"what", limit.what},
         {"regime", limit.regime},
         {"exponent", limit.exponent ? Json(*limit.exponent) : Json()},
         {"relative", limit.exponent ? Json(std::ldexp(1.0, -*limit.exponent)) : Json()},
         {"log2_relative_error", json_number(limit.exponent ? -*limit.exponent : std::numeric_limits<double>::infinity())},
         {"seeds", limit.seeds}});
  return json.dump(2) + "\n";
}

std::string power_seed_line(const std::string& mark, std::uint64_t seed, const Power& power, double seconds) {
  return Json{{"mark", mark}, {"seed", seed}, {"seconds", json_number(seconds)}, {"power", json_of(power)}}.dump() + "\n";
}

std::map<std::uint64_t, Power> power_seeds(std::string_view text, const std::string& mark) {
  std::map<std::uint64_t, Power> result;
  while (!text.empty()) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) break; // a line that was cut off in the middle
    const Json json = Json::parse(text.substr(0, end), nullptr, false);
    text.remove_prefix(end + 1);
    if (json.is_discarded() || json.value("mark", std::string()) != mark) continue;
    result.insert_or_assign(json.at("seed").get<std::uint64_t>(), power_from(json.at("power")));
  }
  return result;
}

std::string to_text(const Power& power, bool by_gate) {
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
  text += fmt::format("\n{} of {} planted faults caught on every seed\n\n{:<34} {:>8} {:>8} {:>12}  {}\n", caught, power.faults.size(),
                      "correct kernel", "refused", "cases", "inconclusive", by_gate ? "largest error / bound" : "");
  for (const CorrectPower& kernel : power.correct)
    text += fmt::format("{:<34} {:>8} {:>8} {:>12}  {}{}\n", kernel.name, kernel.rejected, kernel.cases, kernel.inconclusive,
                        by_gate ? fmt::format("{:.2f} ", kernel.worst_bound_util) : "", first(kernel.rejections));
  if (!power.legal.empty()) text += "\nwhat no test can tell from a right kernel, because the contract allows it:\n";
  for (const LegalPower& legal : power.legal) {
    const std::string name = legal.fault + " under " + legal.label;
    text += fmt::format("{:<44} {:>4} refused of {:>6}  {} {}\n", name, legal.kernel.rejected, legal.kernel.cases, legal.reason,
                        first(legal.kernel.rejections));
  }
  const auto both = halves(power);
  if (!power.faults.empty()) text += "\n";
  for (std::size_t half = 0; half < both.size() && !power.faults.empty(); ++half)
    text += fmt::format("half {}: {} of {} caught by the whole gate; {} by the {} cells that suffice for the other half\n", half,
                        both[half].caught, both[half].faults, both[half].caught_by_cells, both[half].cells);
  return text;
}

} // namespace kdacheck
