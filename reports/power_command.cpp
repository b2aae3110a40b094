#include "commands.hpp"

#include "../properties/gate_power.hpp"
#include "../properties/selection.hpp"
#include "../reference/atomic_file.hpp"
#include "power_json.hpp"

#include <algorithm>
#include <cstdio>

namespace kdacheck {
namespace {

struct NamedFault {
  std::string name;
  const FaultInfo* info;
};

std::vector<const FaultInfo*> chosen_faults(const std::vector<std::string>& patterns) {
  std::vector<NamedFault> named;
  for (const FaultInfo& info : planted_faults()) named.push_back({std::string(info.name), &info});
  std::vector<const FaultInfo*> result;
  for (const NamedFault* fault : matching<NamedFault>("fault", patterns, named)) result.push_back(fault->info);
  return result;
}

} // namespace

int power_command(const PowerArguments& arguments) {
  const CaseSelection& selection = arguments.selection;
  PowerPlan plan{.faults = chosen_faults(arguments.faults),
                 .correct = matching<Kernel>("kernel", selection.kernels, correct_variants()),
                 .properties = matching<Property>("property", selection.properties, properties()),
                 .regimes = matching<Regime>("regime", selection.regimes, regimes()),
                 .tier = selection.tier == "quick"  ? Tier::quick
                         : selection.tier == "full" ? Tier::full
                                                    : Tier::nightly,
                 .first_seed = selection.seed,
                 .seeds = arguments.seeds,
                 .every_catch = arguments.every_catch,
                 .threads = selection.threads};
  make_folder(arguments.out);
  const bool by_gate = arguments.rule.empty();
  const Power power = by_gate ? gate_power(plan, [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); })
                              : rule_power(plan, parse_rule(arguments.rule));
  write_atomically(arguments.out + "/power.json", to_power_json(power, by_gate ? "gate" : arguments.rule));
  std::fputs(to_text(power).c_str(), stdout);
  const bool good =
      std::all_of(power.faults.begin(), power.faults.end(), [](const FaultPower& fault) { return fault.caught(); }) &&
      std::all_of(power.correct.begin(), power.correct.end(), [](const CorrectPower& kernel) { return kernel.rejected == 0; });
  return good || !by_gate ? 0 : 1;
}

} // namespace kdacheck
