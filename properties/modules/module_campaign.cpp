#include "module_campaign.hpp"

#include "../selection.hpp"
#include "../team.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <mutex>

namespace kdacheck {
namespace {

/// Calls work(process, i) for every i < count, each on whatever thread is free, whose own process it is.
template <class Work> void share_out_in_processes(std::size_t count, const ModulePlan& plan, const Work& work) {
  std::atomic<std::size_t> next{0};
  const int threads = static_cast<int>(std::min(count, static_cast<std::size_t>(thread_count(plan.threads))));
  if (threads == 0) return;
  as_a_team(threads, [&] {
    ModuleProcess process(plan.patience);
    for (std::size_t i = next++; i < count; i = next++) try {
        work(process, i);
      } catch (...) {
        next = count;
        throw;
      }
  });
}

bool chosen(const std::vector<std::string>& globs, const std::string& name) {
  return globs.empty() || std::ranges::any_of(globs, [&](const std::string& glob) { return glob_matches(glob, name); });
}

std::vector<ModuleCaseChoice> cases_of(const ModulePlan& plan, const ModuleSuite& suite, const ModuleFault* fault = nullptr) {
  std::vector<ModuleCaseChoice> cases;
  for (const ModuleLaw& law : suite.laws)
    for (const ModuleRegime& regime : suite.regimes)
      for (int seed = 0; seed < plan.seeds; ++seed)
        if (chosen(plan.laws, law.name) && chosen(plan.regimes, regime.name) && (law.backward ? plan.backward : plan.forward))
          cases.push_back({&suite, &law, &regime, fault, plan.first_seed + static_cast<std::uint64_t>(seed)});
  return cases;
}

std::string fault_name(const ModuleSuite& suite, const ModuleFault& fault) { return suite.name + "." + fault.name; }

std::vector<std::string> parts_of(std::string_view token) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= token.size();) {
    const std::size_t end = std::min(token.find(':', at), token.size());
    parts.emplace_back(token.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

template <class Named> const Named& named(const std::string& kind, const std::string& name, const std::vector<Named>& all) {
  for (const Named& item : all)
    if (item.name == name) return item;
  throw std::invalid_argument("the module has no " + kind + " '" + name + "'");
}

} // namespace

int module_seeds(Tier tier) { return tier == Tier::quick ? 1 : tier == Tier::full ? 4 : 16; }

std::string name_in_reports(const ModuleSuite& suite) { return "module." + suite.name; }

std::string module_token(const ModuleCaseResult& result) {
  return "module." + result.module + ":" + result.law + ":" + result.regime + ":" + std::to_string(result.seed) +
         (result.fault.empty() ? "" : ":" + result.fault);
}

std::optional<ModuleCaseResult> replayed_module_case(std::string_view token) {
  if (!token.starts_with("module.")) return std::nullopt;
  const std::vector<std::string> parts = parts_of(token);
  if (parts.size() != 4 && parts.size() != 5)
    throw std::invalid_argument("'" + std::string(token) + "' is not module.NAME:LAW:REGIME:SEED");
  for (const ModuleSuite& suite : module_suites()) {
    if (name_in_reports(suite) != parts[0]) continue;
    std::uint64_t seed = 0;
    const auto read = std::from_chars(parts[3].data(), parts[3].data() + parts[3].size(), seed);
    if (read.ec != std::errc{} || read.ptr != parts[3].data() + parts[3].size())
      throw std::invalid_argument("'" + parts[3] + "' is not a seed");
    return run_in_a_process({.suite = &suite,
                             .law = &named("law", parts[1], suite.laws),
                             .regime = &named("regime", parts[2], suite.regimes),
                             .fault = parts.size() == 5 ? &named("fault", parts[4], suite.faults) : nullptr,
                             .seed = seed});
  }
  throw std::invalid_argument("there is no " + parts[0]);
}

CaseResult case_of(const ModuleCaseResult& result) {
  return {.kernel = "module." + result.module,
          .property = result.law,
          .regime = result.regime,
          .replay = module_token(result),
          .shrunk = {},
          .finding = result.finding,
          .seconds = result.seconds};
}

Outcome run_module_campaign(const ModulePlan& plan, const std::unordered_set<std::string>& finished,
                            const std::function<void(const CaseResult&)>& on_result, const std::function<bool()>& stop) {
  std::vector<ModuleCaseChoice> cases;
  std::size_t index = 0;
  for (const ModuleSuite* suite : plan.suites)
    for (const ModuleCaseChoice& planned : cases_of(plan, *suite))
      if (static_cast<int>(index++ % static_cast<std::size_t>(plan.shards)) == plan.shard) cases.push_back(planned);
  Outcome outcome{.planned = cases.size()};
  outcome.skipped = std::erase_if(cases, [&](const ModuleCaseChoice& planned) {
    return finished.contains(case_key(case_of({.module = planned.suite->name,
                                               .law = planned.law->name,
                                               .regime = planned.regime->name,
                                               .fault = {},
                                               .seed = planned.seed,
                                               .finding = {}})));
  });
  bool stopped = false;
  std::mutex reporting;
  const auto to_stop = [&] {
    const std::lock_guard lock(reporting);
    stopped = stopped || (stop && stop());
    return stopped;
  };
  share_out_in_processes(cases.size(), plan, [&](ModuleProcess& process, std::size_t i) {
    if (to_stop()) return;
    const std::optional<ModuleCaseResult> result = process.run(cases[i], to_stop);
    if (!result) return;
    const std::lock_guard lock(reporting);
    ++outcome.ran;
    on_result(case_of(*result));
  });
  outcome.stopped = outcome.ran + outcome.skipped < outcome.planned;
  return outcome;
}

std::vector<std::string> module_fault_names(std::span<const ModuleSuite> suites) {
  std::vector<std::string> names;
  for (const ModuleSuite& suite : suites)
    for (const ModuleFault& fault : suite.faults) names.push_back(fault_name(suite, fault));
  return names;
}

Power module_power(const ModulePlan& plan, const std::vector<std::string>& fault_globs, bool every_catch) {
  Power power;
  struct Job {
    const ModuleSuite* suite;
    const ModuleFault* fault; ///< null: the module itself
    FaultPower result{};
    CorrectPower correct{};
  };
  std::vector<Job> jobs;
  for (const ModuleSuite* suite : plan.suites) {
    for (const ModuleFault& fault : suite->faults)
      if (chosen(fault_globs, fault_name(*suite, fault))) {
        jobs.push_back({.suite = suite, .fault = &fault, .result = {}, .correct = {}});
        FaultPower& power_of = jobs.back().result;
        power_of.name = fault_name(*suite, fault), power_of.origin = fault.origin, power_of.what = fault.what;
      }
    jobs.push_back({.suite = suite, .fault = nullptr, .result = {}, .correct = {}});
    jobs.back().correct.name = name_in_reports(*suite), jobs.back().correct.contract = suite->summary;
  }
  share_out_in_processes(jobs.size(), plan, [&](ModuleProcess& process, std::size_t j) {
    Job& job = jobs[j];
    ModulePlan one = plan;
    one.seeds = 1;
    for (int seed = 0; seed < plan.seeds; ++seed) {
      one.first_seed = plan.first_seed + static_cast<std::uint64_t>(seed);
      bool caught = false;
      double seconds = 0;
      for (const ModuleCaseChoice& planned : cases_of(one, *job.suite, job.fault)) {
        if (caught && !every_catch && job.fault) break;
        const ModuleCaseResult result = *process.run(planned);
        const bool refused = is_failure(result.finding.verdict);
        if (!job.fault) {
          ++job.correct.cases, ++job.correct.cases_of_regime[result.regime];
          job.correct.agreement += is_agreement(result.law) ? 1 : 0;
          job.correct.rejected += refused ? 1 : 0;
          if (refused) job.correct.rejections.push_back(module_token(result));
          if (result.finding.verdict == Verdict::passed)
            job.correct.worst_bound_util = std::max(job.correct.worst_bound_util, result.finding.bound_util);
          continue;
        }
        ++job.result.cases;
        if (!caught) seconds += result.seconds;
        if (!refused) continue;
        caught = true;
        ++job.result.caught_by[{result.law, result.regime}];
      }
      if (!job.fault) continue;
      ++job.result.seeds;
      job.result.caught_seeds += caught ? 1 : 0;
      if (caught) job.result.first_catch_seconds += seconds;
    }
  });
  for (Job& job : jobs) {
    if (job.fault)
      power.faults.push_back(std::move(job.result));
    else
      power.correct.push_back(std::move(job.correct));
  }
  return power;
}

} // namespace kdacheck
