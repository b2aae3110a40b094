#include "campaign.hpp"

#include "../kernels/plugin/abandoned_calls.hpp"
#include "../kernels/plugin/broken_law.hpp"
#include "cases/generate.hpp"
#include "localise/localise.hpp"
#include "team.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <tuple>

namespace kdacheck {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// First failures of laws not localised before: so many times those that are localised in any case.
constexpr int most_laws_localised = 4;

/// One recipe drawn from a regime, to be judged with every kernel and property of the plan: neighbours share truths and
/// budgets.
struct Draw {
  const Regime* regime; ///< or nullptr for a found case
  std::uint64_t seed;
  int round;
  const FoundCase* found = nullptr;

  std::string group() const { return found ? std::string(found_cases_name) : regime->name; }
  Recipe recipe(Tier tier) const {
    return found ? found->recipe : drawn(recipes_of(*regime, tier, static_cast<std::uint64_t>(round)), seed);
  }
};

std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3ull;
  return mixed(hash);
}

struct Density {
  int rounds; ///< draws per regime
  int one_in; ///< a law without regimes of its own visits one in so many (kernel, regime, round) cells
};

Density density(Tier tier) {
  switch (tier) {
  case Tier::quick: return {2, 8};
  case Tier::full: return {12, 3};
  default: return {60, 1};
  }
}

/// Agreement with the oracle, with the other laws that say so, visits every cell; a law that names its regimes visits all of those; the
/// others are spread evenly, by the plan's seed, so that every law meets every regime on some kernel and every kernel some regimes, and
/// all of them in the course of a full run. Rounds beyond the tier's are for the laws that want them.
bool visits(const Property& property, const Kernel& kernel, const Draw& draw, Density dense, std::uint64_t seed) {
  if (draw.found) return property.name == draw.found->property;
  const bool named = std::find(property.regimes.begin(), property.regimes.end(), draw.regime->name) != property.regimes.end();
  if (!property.regimes.empty() && !named) return false;
  if (draw.round >= dense.rounds) return property.in_every_round;
  if (named || property.everywhere) return true;
  const std::uint64_t cell = hash_of(property.name) + 3 * hash_of(kernel.name) + 5 * hash_of(draw.regime->name) + 7 * mixed(seed);
  return (mixed(cell) + static_cast<std::uint64_t>(draw.round)) % static_cast<std::uint64_t>(dense.one_in) == 0;
}

Finding not_supported(std::string reason) {
  return {.verdict = Verdict::not_supported, .bound_util = 0, .place = {}, .detail = std::move(reason), .metrics = {}};
}

Finding check(const Kernel& kernel, const Property& property, const Recipe& recipe, Judge& judge) try {
  if (!kernel.unavailable.empty()) return not_supported(kernel.unavailable);
  if (property.direction == Direction::backward && !kernel.backward) return not_supported("the kernel has no backward pass");
  if (property.excluded)
    if (std::string reason = property.excluded(kernel.contract); !reason.empty()) return not_supported(std::move(reason));
  Recipe read = recipe;
  if (property.direction == Direction::forward) read.loss = LossPattern::none; // nothing of it is looked at, and it takes time to draw
  if (auto reason = outside_domain(kernel.contract, make_problem(read, input_formats(kernel.contract))))
    return not_supported(std::move(*reason));
  return property.check({kernel, judge}, read);
} catch (const std::bad_alloc&) {
  throw; // trouble of the machine says nothing about the kernel
} catch (const KernelCrashed& crash) {
  return {.verdict = Verdict::crashed, .bound_util = 0, .place = {}, .detail = crash.what(), .metrics = {}};
} catch (const KernelTimedOut& late) {
  return {.verdict = Verdict::timed_out, .bound_util = 0, .place = {}, .detail = late.what(), .metrics = {}};
} catch (const KernelBrokeLaw& broken) {
  return {.verdict = Verdict::failed_property,
          .bound_util = std::numeric_limits<double>::infinity(),
          .place = {},
          .detail = broken.what(),
          .metrics = {}};
} catch (const std::exception& error) {
  return {
      .verdict = Verdict::crashed, .bound_util = 0, .place = {}, .detail = std::string("the check threw: ") + error.what(), .metrics = {}};
}

} // namespace

std::string case_key(const CaseResult& result) { return result.replay; }

CaseResult run_case(const Kernel& kernel, const Property& property, const Recipe& recipe, Judge& judge) {
  const auto start = Clock::now();
  CaseResult result;
  result.kernel = kernel.name;
  result.property = property.name;
  result.regime = recipe.regime;
  result.replay = replay_token({kernel.name, property.name, recipe});
  result.finding = check(kernel, property, recipe, judge);
  result.seconds = seconds_since(start);
  return result;
}

Outcome run_campaign(const Plan& plan, const std::function<void(const CaseResult&)>& on_result,
                     const std::function<void(const Progress&)>& on_progress, const std::function<bool()>& stop) {
  const Density dense = density(plan.tier);
  std::vector<Draw> draws;
  for (const FoundCase* found : plan.found) draws.push_back({nullptr, 0, 0, found});
  int most_rounds = dense.rounds;
  for (const Regime* regime : plan.regimes) most_rounds = std::max(most_rounds, regime->rounds);
  for (int round = 0; round < most_rounds; ++round)
    for (const Regime* regime : plan.regimes)
      if (round < std::max(dense.rounds, regime->rounds))
        draws.push_back(
            {regime, mixed(plan.seed * 0x9e3779b97f4a7c15ull + hash_of(regime->name) + static_cast<std::uint64_t>(round)), round});

  const auto cells = [&](const Draw& draw, const auto& visit) {
    for (const Kernel* kernel : plan.kernels)
      for (const Property* property : plan.properties)
        if (visits(*property, *kernel, draw, dense, plan.seed)) visit(*kernel, *property);
  };
  const auto mine = [&](std::size_t index) { return static_cast<int>(index % static_cast<std::size_t>(plan.shards)) == plan.shard; };

  Progress progress;
  for (std::size_t i = 0; i < draws.size(); ++i)
    if (mine(i)) cells(draws[i], [&](const Kernel&, const Property&) { ++progress.planned; });

  Outcome outcome;
  outcome.planned = progress.planned;
  const auto start = Clock::now();
  const auto spent = [&] { return (plan.time_budget && seconds_since(start) > *plan.time_budget) || (stop && stop()); };

  Judge judge;
  std::mutex reporting;
  std::set<std::tuple<std::string, std::string, std::string>> shrunk_before;
  std::set<std::string> dropped;
  std::map<std::string, int> localised;                         // failures by kernel
  std::set<std::pair<std::string, std::string>> localised_laws; // kernel and property
  std::map<std::string, double> crashes_shrunk;                 // seconds by kernel
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stopped{false};

  const auto ended = [](const CaseResult& result) {
    return result.finding.verdict == Verdict::crashed || result.finding.verdict == Verdict::timed_out;
  };

  const auto shrink = [&](const Kernel& kernel, const Property& property, const Recipe& recipe, CaseResult& result) {
    double allowance = plan.shrink_seconds;
    if (plan.time_budget) allowance = std::min(allowance, *plan.time_budget - seconds_since(start));
    const double all_crashes = crashes_shrunk_for * plan.shrink_seconds;
    if (ended(result)) {
      const std::lock_guard lock(reporting);
      allowance = std::min(allowance, all_crashes - crashes_shrunk[kernel.name]);
    }
    if (!(allowance > 0)) return;
    const auto began = Clock::now();
    const auto still_fails = [&](const Recipe& candidate) {
      try {
        return !spent() && is_failure(check(kernel, property, candidate, judge).verdict);
      } catch (const CallAbandoned&) {
        return false;
      }
    };
    const Shrunk walk =
        shrunk(recipe, still_fails, began + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(allowance)));
    if (walk.steps > 0) result.shrunk = replay_token({kernel.name, property.name, walk.recipe});
    if (!ended(result)) return;
    const std::lock_guard lock(reporting);
    double& taken = crashes_shrunk[kernel.name];
    const bool more_before = taken < all_crashes;
    taken += seconds_since(began);
    if (more_before && taken >= all_crashes && plan.on_unshrunk) plan.on_unshrunk(kernel.name, taken);
  };

  // The case as drawn tells stages apart better than the shrunk one, in which many a stage has nothing left to do.
  const auto find_stage = [&](const Kernel& kernel, const Property& property, const Recipe& recipe, CaseResult& result) {
    if (ended(result)) return;
    {
      const std::lock_guard lock(reporting);
      const bool new_law = localised_laws.emplace(kernel.name, property.name).second;
      const int most = new_law ? most_laws_localised * plan.localised_per_kernel : plan.localised_per_kernel;
      int& so_far = localised[kernel.name];
      if (so_far >= most) return;
      ++so_far;
    }
    try {
      result.localised = to_text(localise(kernel, property, recipe, judge));
    } catch (const CallAbandoned&) {
      return;
    } catch (const std::exception& error) { // a kernel that dies on a call made to find out must not end the run
      result.localised = std::string("stage unclear (") + error.what() + ")";
    }
    const std::lock_guard lock(reporting);
    if (plan.on_localised) plan.on_localised(result);
  };

  const auto judge_all = [&] {
    for (std::size_t i = next++; i < draws.size() && !stopped; i = next++) {
      if (!mine(i)) continue;
      const Recipe drawn = draws[i].recipe(plan.tier);
      cells(draws[i], [&](const Kernel& kernel, const Property& property) {
        if (stopped) return;
        if (spent()) {
          stopped = true;
          return;
        }
        if (plan.drop_failed_kernels) {
          const std::lock_guard lock(reporting);
          if (dropped.contains(kernel.name)) return;
        }
        const Recipe recipe = fitted(drawn, kernel.contract);
        if (!plan.finished.empty() && plan.finished.contains(replay_token({kernel.name, property.name, recipe}))) {
          const std::lock_guard lock(reporting);
          ++outcome.skipped;
          ++progress.done;
          return;
        }
        CaseResult result;
        try {
          result = run_case(kernel, property, recipe, judge);
        } catch (const CallAbandoned&) {
          stopped = true;
          return;
        }
        result.regime = draws[i].group();
        if (is_failure(result.finding.verdict)) {
          bool first;
          {
            const std::lock_guard lock(reporting);
            first = shrunk_before.emplace(result.kernel, result.property, result.regime).second;
            if (first && plan.on_failure) plan.on_failure(result);
          }
          if (first && plan.shrink_seconds > 0) shrink(kernel, property, recipe, result);
          if (first) find_stage(kernel, property, recipe, result);
        }
        const std::lock_guard lock(reporting);
        ++outcome.ran;
        ++progress.done;
        if (is_failure(result.finding.verdict)) {
          ++progress.failed;
          dropped.insert(kernel.name);
        }
        on_result(result);
        if (on_progress) on_progress(progress);
      });
    }
  };

  as_a_team(plan.threads, [&] {
    try {
      judge_all();
    } catch (...) { // trouble of the machine: memory ran out, a result could not be kept
      stopped = true;
      throw;
    }
  });
  outcome.stopped = stopped;
  return outcome;
}

} // namespace kdacheck
