#include "commands.hpp"

#include "../properties/gate_power.hpp"
#include "../properties/modules/module_campaign.hpp"
#include "../properties/selection.hpp"
#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "context.hpp"
#include "limits_text.hpp"
#include "module_selection.hpp"
#include "power_json.hpp"
#include "progress_line.hpp"
#include "right_kernels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <limits>

namespace kdacheck {
namespace {

struct NamedFault {
  std::string name;
  const FaultInfo* info; ///< null: a module's
};

/// Faults of kernels that the patterns choose; whether any module's is among the chosen ones.
std::pair<std::vector<const FaultInfo*>, bool> chosen_faults(const PowerArguments& arguments) {
  std::vector<NamedFault> named;
  if (arguments.selection.modules.empty())
    for (const FaultInfo& info : planted_kernels()) named.push_back({std::string(info.name), &info});
  for (const std::string& name : module_fault_names(module_suites())) named.push_back({name, nullptr});
  std::vector<const FaultInfo*> result;
  bool modules = false;
  for (const NamedFault* fault : matching<NamedFault>("fault", arguments.faults, named)) {
    if (fault->info) result.push_back(fault->info);
    modules = modules || !fault->info;
  }
  return {result, modules};
}

/// A kernel that must not be refused.
struct NamedRight {
  std::string name;
  const Kernel* correct;      ///< null: a legal rounding
  const LegalRounding* legal; ///< null: a correct variant
};

void choose_right_kernels(const std::vector<std::string>& patterns, PowerPlan& plan) {
  std::vector<NamedRight> named;
  for (const Kernel& kernel : correct_variants()) named.push_back({kernel.name, &kernel, nullptr});
  for (const LegalRounding& legal : legal_roundings()) named.push_back({legal_kernel(legal).name, nullptr, &legal});
  for (const NamedRight* chosen : matching<NamedRight>("kernel", patterns, named)) {
    if (chosen->correct) plan.correct.push_back(chosen->correct);
    if (chosen->legal) plan.legal.push_back(chosen->legal);
  }
}

PowerPlan plan_of(const PowerArguments& arguments, std::vector<const FaultInfo*> faults) {
  const CaseSelection& selection = arguments.selection;
  const bool kernels = selection.modules.empty();
  PowerPlan plan{.faults = std::move(faults),
                 .correct = {},
                 .properties =
                     kernels ? matching<Property>("property", selection.properties, properties()) : std::vector<const Property*>{},
                 .regimes = kernels ? matching<Regime>("regime", selection.regimes, regimes()) : std::vector<const Regime*>{},
                 .tier = selection.tier == "quick"  ? Tier::quick
                         : selection.tier == "full" ? Tier::full
                                                    : Tier::nightly,
                 .first_seed = selection.seed,
                 .seeds = arguments.seeds,
                 .every_catch = arguments.every_catch,
                 .shrink_seconds = arguments.keep.empty() ? 0 : arguments.shrink_seconds,
                 .threads = selection.threads};
  if (kernels) choose_right_kernels(selection.kernels, plan);
  return plan;
}

/// What tells seeds apart that must not be added up: the program, and what was asked for but for the number of seeds.
std::string mark_of(const PowerArguments& arguments) {
  const CaseSelection& selection = arguments.selection;
  return fmt::format("{} {} {} {} {} {} {}", this_context().program, selection.tier, arguments.every_catch,
                     fmt::join(selection.kernels, ","), fmt::join(selection.properties, ","), fmt::join(selection.regimes, ","),
                     fmt::join(arguments.faults, ","));
}

std::string content_of(const std::string& path) { return std::filesystem::exists(path) ? text_of_file(path) : ""; }

std::size_t fewest_cases(const Power& power) {
  std::size_t fewest = std::numeric_limits<std::size_t>::max();
  for (const CorrectPower& kernel : power.correct) fewest = std::min(fewest, kernel.cases);
  return fewest;
}

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void report_of_seeds(const std::string& which, const Power& power, double seconds) {
  const auto caught = std::ranges::count_if(power.faults, [](const FaultPower& fault) { return fault.caught(); });
  std::size_t refused = 0, cases = 0;
  for (const CorrectPower& kernel : power.correct) refused += kernel.rejected, cases += kernel.cases;
  fmt::print(stderr, "{}: {} of {} faults caught, {} of {} cases of what is right refused, in {:.0f} s\n", which, caught,
             power.faults.size(), refused, cases, seconds);
}

/// Seed by seed, each kept in power_seeds.jsonl as soon as it is done. Seeds beyond those asked for run correct kernels alone.
Power powers_of_seeds(const PowerArguments& arguments, const PowerPlan& plan) {
  const std::string path = arguments.out + "/power_seeds.jsonl", mark = mark_of(arguments);
  std::string log = arguments.resume ? content_of(path) : "";
  auto done = power_seeds(log, mark);
  Power all;
  for (int i = 0; i < plan.seeds || (!plan.correct.empty() && fewest_cases(all) < arguments.correct_runs); ++i) {
    const std::uint64_t seed = plan.first_seed + static_cast<std::uint64_t>(i);
    PowerPlan of_seed = plan;
    if (i >= plan.seeds) of_seed.faults.clear();
    // Catches depend on the number of threads only in which case comes first.
    auto found = done.find(seed);
    const bool known = found != done.end() && found->second.faults.size() == of_seed.faults.size();
    if (!known) {
      fmt::print(stderr, "seed {}: faults to plant {}, right kernels to judge {}\n", seed, of_seed.faults.size(),
                 of_seed.correct.size() + of_seed.legal.size());
      const auto start = std::chrono::steady_clock::now();
      Power power = [&] {
        ProgressLine line;
        return gate_power_of_seed(of_seed, seed, [&](std::string_view what, const Progress& now) {
          line.show(now, fmt::format("seed {}, {}: ", seed, what), what.starts_with("faults") ? "caught" : "refused");
        });
      }();
      const double seconds = since(start);
      log += power_seed_line(mark, seed, power, seconds);
      write_atomically(path, log);
      report_of_seeds(fmt::format("seed {}", seed), power, seconds);
      found = done.insert_or_assign(seed, std::move(power)).first;
    }
    Power further = found->second;
    if (i >= plan.seeds) { // no fault was tried on this seed
      const std::vector<FaultPower> faults = all.faults;
      further.faults = faults;
      for (FaultPower& fault : further.faults)
        fault = {.name = fault.name, .origin = fault.origin, .what = fault.what, .caught_by = {}, .found = {}};
    }
    add(all, further);
    if (i >= plan.seeds && fewest_cases(further) == 0) break; // no case of this selection is ever judged
  }
  return all;
}

void keep_found(const Power& power, const std::string& file) {
  std::size_t kept = 0;
  for (const FaultPower& fault : power.faults) {
    if (fault.found.empty()) continue;
    const Replay replay = replay_from_token(fault.found);
    kept += keep_found_case(file, {.property = replay.property,
                                   .recipe = replay.recipe,
                                   .why = {fmt::format("fault {}: {} ({}); shrunk by gate-power", fault.name, fault.what, fault.origin)}});
  }
  fmt::print("{} cases kept in {}\n", kept, file);
}

int limits_command(const PowerArguments& arguments) {
  LimitsPlan plan{.kernels = right_kernels(arguments.selection.kernels),
                  .regimes = matching<Regime>("regime", arguments.selection.regimes, regimes()),
                  .first_seed = arguments.selection.seed,
                  .seeds = arguments.seeds,
                  .threads = arguments.selection.threads};
  if (arguments.selection.kernels.empty()) plan.kernels = usual_kernels_for_limits();
  if (arguments.selection.regimes.empty()) plan.regimes = usual_regimes_for_limits();
  if (arguments.list) {
    for (const Kernel* kernel : plan.kernels)
      for (const Regime* regime : plan.regimes)
        if (can_have_limits(*kernel, *regime)) fmt::print("{} {}\n", kernel->name, regime->name);
    return 0;
  }
  demand_room_for_folder(arguments.out);
  demand_room_for_file(arguments.out + "/power.json");
  make_folder(arguments.out);
  const std::vector<Limit> limits = detection_limits(plan, [](const std::string& text) { fmt::print(stderr, "{}\n", text); });
  write_atomically(arguments.out + "/power.json", to_power_json({}, "gate", limits));
  write_atomically(arguments.out + "/limits.md", limits_markdown(limits, this_context(), arguments.command));
  std::fputs(limits_table(limits).c_str(), stdout);
  fmt::print("results in {}/: power.json limits.md\n", arguments.out);
  return limits.empty() ? 5 : 0;
}

} // namespace

int power_command(const PowerArguments& arguments) {
  const bool by_gate = arguments.rule.empty();
  const AcceptanceRule rule = by_gate ? AcceptanceRule{} : parse_rule(arguments.rule); // before any folder is made
  if (!by_gate && (arguments.limits || arguments.resume || !arguments.keep.empty() || arguments.correct_runs > 0))
    throw UsageError("--rule goes with none of --limits, --resume, --keep and --correct-runs");
  if (arguments.limits && (arguments.resume || !arguments.keep.empty() || arguments.correct_runs > 0 || !arguments.faults.empty()))
    throw UsageError("--limits goes with none of --fault, --resume, --keep and --correct-runs");
  if (arguments.list && !arguments.limits) throw UsageError("--list goes with --limits");
  if (arguments.limits) return limits_command(arguments);
  if (!arguments.keep.empty()) demand_found_cases(arguments.keep);
  auto [faults, module_faults] = chosen_faults(arguments);
  PowerPlan plan = plan_of(arguments, std::move(faults));
  if (!by_gate) plan.legal.clear(); // a rule knows no contracts
  ModulePlan modules = by_gate && module_faults ? module_plan(arguments.selection, false) : ModulePlan{};
  demand_room_for_folder(arguments.out);
  demand_room_for_file(arguments.out + "/power.json");
  make_folder(arguments.out);
  Power power;
  const bool kernels_too = !plan.faults.empty() || !plan.correct.empty() || !plan.legal.empty();
  if (!by_gate)
    power = rule_power(plan, rule);
  else if (kernels_too)
    power = powers_of_seeds(arguments, plan);
  if (by_gate && module_faults) {
    modules.seeds = arguments.seeds;
    const auto start = std::chrono::steady_clock::now();
    Power of_modules = module_power(modules, arguments.faults, arguments.every_catch);
    report_of_seeds(
        fmt::format("modules, seeds {} to {}", modules.first_seed, modules.first_seed + static_cast<std::uint64_t>(modules.seeds) - 1),
        of_modules, since(start));
    std::ranges::move(of_modules.faults, std::back_inserter(power.faults));
    std::ranges::move(of_modules.correct, std::back_inserter(power.correct));
  }
  write_atomically(arguments.out + "/power.json", to_power_json(power, by_gate ? "gate" : arguments.rule));
  std::fputs(to_text(power, by_gate).c_str(), stdout);
  if (!arguments.keep.empty()) keep_found(power, arguments.keep);
  const auto not_refused = [](const CorrectPower& kernel) { return kernel.rejected == 0; };
  const bool good = std::ranges::all_of(power.faults, [](const FaultPower& fault) { return fault.caught(); }) &&
                    std::ranges::all_of(power.correct, not_refused) && std::ranges::all_of(power.legal, not_refused, &LegalPower::kernel);
  return good || !by_gate ? 0 : 1;
}

} // namespace kdacheck
