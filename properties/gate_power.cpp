#include "gate_power.hpp"

#include "transform.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace kdacheck {

namespace {

/// A few campaigns per seed over faulty and correct kernels alike; `judge_case` says whether a result counts as a catch.
struct Tally {
  Power power;
  std::map<std::string, FaultPower*> fault_of;
  std::map<std::string, CorrectPower*> correct_of;

  explicit Tally(const PowerPlan& plan) {
    for (const FaultInfo* info : plan.faults)
      power.faults.push_back({.name = std::string(info->name),
                              .origin = std::string(info->origin),
                              .what = std::string(info->what),
                              .caught_by = {},
                              .found = {}});
    for (const LegalRounding* legal : plan.legal) {
      const Kernel kernel = legal_kernel(*legal);
      power.legal.push_back({.kernel = {.name = kernel.name, .contract = to_text(kernel.contract), .rejections = {}},
                             .fault = kernel.name.substr(6, kernel.name.size() - 7 - legal->label.size()),
                             .label = std::string(legal->label),
                             .reason = std::string(legal->reason)});
    }
    for (const Kernel* kernel : plan.correct)
      power.correct.push_back({.name = kernel->name, .contract = to_text(kernel->contract), .rejections = {}});
    for (FaultPower& fault : power.faults) fault_of["fault." + fault.name] = &fault;
    for (CorrectPower& kernel : power.correct) correct_of[kernel.name] = &kernel;
    for (LegalPower& legal : power.legal) correct_of[legal.kernel.name] = &legal.kernel;
  }
};

std::vector<const Property*> of_direction(const std::vector<const Property*>& all, Direction direction) {
  std::vector<const Property*> result;
  std::ranges::copy_if(all, std::back_inserter(result), [&](const Property* property) { return property->direction == direction; });
  return result;
}

/// The laws that visit every cell, and the rest.
std::array<std::vector<const Property*>, 2> in_stages(const std::vector<const Property*>& all) {
  std::array<std::vector<const Property*>, 2> stages;
  for (const Property* property : all) stages[property->everywhere ? 0 : 1].push_back(property);
  return stages;
}

std::vector<const Kernel*> pointers_to(const std::vector<Kernel>& kernels) {
  std::vector<const Kernel*> result;
  for (const Kernel& kernel : kernels) result.push_back(&kernel);
  return result;
}

} // namespace

bool is_agreement(std::string_view law) { return law == "agrees-with-the-oracle" || law == "gradients-agree-with-the-oracle"; }

Power gate_power_of_seed(const PowerPlan& plan, std::uint64_t seed, const SeedProgress& on_progress) {
  Tally tally(plan);
  std::vector<Kernel> wrong_forward, wrong_backward, legal;
  for (const FaultInfo* info : plan.faults) (info->backward ? wrong_backward : wrong_forward).push_back(faulty_kernel(*info));
  for (const LegalRounding* each : plan.legal) legal.push_back(legal_kernel(*each));
  Plan campaign{.kernels = {},
                .properties = {},
                .regimes = plan.regimes,
                .tier = plan.tier,
                .seed = seed,
                .time_budget = {},
                .threads = plan.threads,
                .shrink_seconds = plan.shrink_seconds,
                .finished = {},
                .drop_failed_kernels = !plan.every_catch,
                .on_failure = {}};
  std::map<std::string, double> spent;
  std::map<std::string, bool> caught;
  const auto count = [&](const CaseResult& result) {
    FaultPower& fault = *tally.fault_of.at(result.kernel);
    ++fault.cases;
    if (!caught[result.kernel]) spent[result.kernel] += result.seconds;
    if (!is_failure(result.finding.verdict)) return;
    if (!caught[result.kernel]) {
      caught[result.kernel] = true;
      ++fault.caught_seeds;
      fault.first_catch_seconds += spent[result.kernel];
      fault.found = result.shrunk.empty() ? result.replay : result.shrunk;
    }
    fault.caught_by[{result.property, result.regime}] = 1; // seeds, however many of this one's cases show it
  };
  const auto run = [&](std::string_view what, const auto& on_result) {
    run_campaign(campaign, on_result, [&](const Progress& now) {
      if (on_progress) on_progress(what, now);
    });
  };
  const auto plant = [&](const std::vector<Kernel>& wrong, Direction direction) {
    campaign.kernels = pointers_to(wrong);
    for (auto& stage : in_stages(of_direction(plan.properties, direction))) {
      campaign.properties = std::move(stage);
      run(direction == Direction::forward ? "faults of the forward pass" : "faults of the backward pass", count);
      if (!plan.every_catch) std::erase_if(campaign.kernels, [&](const Kernel* kernel) { return caught[kernel->name]; });
    }
  };
  plant(wrong_forward, Direction::forward);
  plant(wrong_backward, Direction::backward);
  for (FaultPower& fault : tally.power.faults) ++fault.seeds;

  const auto count_right = [&](const CaseResult& result) {
    CorrectPower& kernel = *tally.correct_of.at(result.kernel);
    if (result.finding.verdict == Verdict::not_supported) return;
    const bool decided = result.finding.verdict != Verdict::inconclusive;
    ++(decided ? kernel.cases : kernel.inconclusive);
    if (decided) ++kernel.cases_of_regime[result.regime];
    if (decided && is_agreement(result.property)) ++kernel.agreement;
    if (std::isfinite(result.finding.bound_util)) kernel.worst_bound_util = std::max(kernel.worst_bound_util, result.finding.bound_util);
    if (!is_failure(result.finding.verdict)) return;
    ++kernel.rejected;
    kernel.rejections.push_back(result.replay);
  };
  campaign.drop_failed_kernels = false;
  campaign.shrink_seconds = 0;
  for (const Direction direction : {Direction::forward, Direction::backward}) {
    campaign.kernels = pointers_to(legal);
    std::erase_if(campaign.kernels,
                  [&](const Kernel* kernel) { return static_cast<bool>(kernel->backward) != (direction == Direction::backward); });
    campaign.properties = of_direction(plan.properties, direction);
    run("what a contract allows", count_right);
  }
  campaign.kernels = plan.correct;
  campaign.properties = plan.properties;
  run("right kernels", count_right);
  return std::move(tally.power);
}

Power gate_power(const PowerPlan& plan, const std::function<void(const std::string&)>& on_progress) {
  Power power;
  for (int seed = 0; seed < plan.seeds; ++seed) {
    add(power, gate_power_of_seed(plan, plan.first_seed + static_cast<std::uint64_t>(seed)));
    if (on_progress) on_progress("seed " + std::to_string(seed + 1) + " of " + std::to_string(plan.seeds));
  }
  return power;
}

namespace {

void add(CorrectPower& kernel, const CorrectPower& further) {
  kernel.cases += further.cases;
  kernel.rejected += further.rejected;
  kernel.inconclusive += further.inconclusive;
  kernel.agreement += further.agreement;
  for (const auto& [regime, cases] : further.cases_of_regime) kernel.cases_of_regime[regime] += cases;
  kernel.rejections.insert(kernel.rejections.end(), further.rejections.begin(), further.rejections.end());
  kernel.worst_bound_util = std::max(kernel.worst_bound_util, further.worst_bound_util);
}

} // namespace

void add(Power& power, const Power& further) {
  if (power.faults.empty() && power.correct.empty() && power.legal.empty()) {
    power = further;
    return;
  }
  for (std::size_t i = 0; i < power.faults.size(); ++i) {
    FaultPower& fault = power.faults[i];
    const FaultPower& more = further.faults.at(i);
    fault.seeds += more.seeds;
    fault.caught_seeds += more.caught_seeds;
    fault.first_catch_seconds += more.first_catch_seconds;
    fault.cases += more.cases;
    if (fault.found.empty()) fault.found = more.found;
    for (const auto& [cell, seeds] : more.caught_by) fault.caught_by[cell] += seeds;
  }
  for (std::size_t i = 0; i < power.correct.size(); ++i) add(power.correct[i], further.correct.at(i));
  for (std::size_t i = 0; i < power.legal.size(); ++i) add(power.legal[i].kernel, further.legal.at(i).kernel);
}

Power rule_power(const PowerPlan& plan, const AcceptanceRule& rule) {
  Tally tally(plan);
  Judge judge;
  std::map<std::string, Kernel> without_fault; // by contract text
  const auto reference = [&](const Kernel& kernel) -> const Kernel& {
    const std::string text = to_text(kernel.contract);
    return without_fault.try_emplace(text, faultless_kernel("reference", text)).first->second;
  };
  const auto refused = [&](const Kernel& kernel, const Recipe& drawn, bool backward) -> std::optional<bool> {
    const Problem problem =
        with_cotangents_in(make_problem(fitted(drawn, kernel.contract), input_formats(kernel.contract)), kernel.contract.output);
    if (outside_domain(kernel.contract, problem)) return std::nullopt;
    const auto run = [&](const Kernel& of) { return backward ? run_backward(of, problem) : run_forward(of, problem); };
    const Run other = rule.kind == AcceptanceRule::Kind::twice_ref ? run(reference(kernel)) : Run{};
    return backward ? !accepts_gradients(rule, run(kernel), *judge.gradient_truth(problem), other)
                    : !accepts(rule, run(kernel), *judge.forward_truth(problem), other);
  };
  const auto planned = [&](bool backward) {
    return plan.faults.empty() || std::ranges::any_of(plan.faults, [&](const FaultInfo* info) { return info->backward == backward; });
  };
  for (int seed = 0; seed < plan.seeds; ++seed) {
    std::map<std::string, bool> caught;
    for (const Regime* regime : plan.regimes) {
      const Recipe drawn = regime->draw(plan.first_seed + static_cast<std::uint64_t>(seed), plan.tier);
      for (const FaultInfo* info : plan.faults) {
        FaultPower& fault = *tally.fault_of.at("fault." + std::string(info->name));
        const auto verdict = refused(faulty_kernel(*info), drawn, info->backward);
        if (!verdict) continue;
        ++fault.cases;
        if (!*verdict) continue;
        ++fault.caught_by[{"rule", regime->name}];
        caught[fault.name] = true;
      }
      for (const Kernel* kernel : plan.correct)
        for (const bool backward : {false, true}) {
          if (!planned(backward) || (backward && !kernel->backward)) continue;
          CorrectPower& correct = *tally.correct_of.at(kernel->name);
          const auto verdict = refused(*kernel, drawn, backward);
          if (!verdict) continue;
          ++correct.cases, ++correct.cases_of_regime[regime->name];
          if (!*verdict) continue;
          ++correct.rejected;
          correct.rejections.push_back(to_token(fitted(drawn, kernel->contract)));
        }
    }
    for (FaultPower& fault : tally.power.faults) {
      ++fault.seeds;
      if (caught[fault.name]) ++fault.caught_seeds;
    }
  }
  return std::move(tally.power);
}

} // namespace kdacheck
