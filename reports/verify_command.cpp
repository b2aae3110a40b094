#include "commands.hpp"

#include "../golden/recorded.hpp"
#include "../kernels/plugin/abandoned_calls.hpp"
#include "../properties/selection.hpp"
#include "case_log.hpp"
#include "folder_lock.hpp"
#include "module_figures.hpp"
#include "module_selection.hpp"
#include "progress_line.hpp"
#include "recorded_cases.hpp"
#include "result_files.hpp"
#include "table.hpp"
#include "words.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "../reference/sha256.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>
#include <span>
#include <string_view>

namespace kdacheck {
namespace {

std::atomic<bool> interrupted{false};
std::atomic<std::int64_t> interrupted_at{0}; ///< milliseconds, on the clock that runs steadily
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<std::int64_t>::is_always_lock_free); // a signal handler uses them

/// What comes within this time of a first signal is the same wish: `timeout` sends SIGTERM to a program and then to its group.
constexpr std::int64_t same_wish = 500;

std::int64_t milliseconds_now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{1000} * now.tv_sec + now.tv_nsec / 1000000;
}

void interrupt(int signal) {
  const int error_number = errno;
  const std::int64_t now = milliseconds_now();
  std::int64_t first = 0;
  if (interrupted_at.compare_exchange_strong(first, now)) {
    interrupted = true;
    make_calls(false);
    constexpr std::string_view words = "\nkdacheck: stopping; calls of foreign kernels in flight are given up\n";
    if (write(STDERR_FILENO, words.data(), words.size()) < 0) { // then it stays unsaid
    }
  } else if (now - first >= same_wish) {
    std::signal(signal, SIG_DFL);
    std::raise(signal); // arrives when this returns
  }
  errno = error_number;
}

/// While it lives, the first Ctrl-C, SIGTERM or SIGHUP (a terminal that closes) asks the campaign to stop: a case in flight is
/// ended unless the kernel is foreign, whose call is given up; a later one ends the process as usual. What was ignored when the
/// program started, as nohup does, stays so.
struct InterruptWatch {
  InterruptWatch() {
    make_calls(true);
    struct sigaction action {};
    action.sa_handler = interrupt;
    for (std::size_t i = 0; i < signals.size(); ++i) {
      sigaction(signals[i], &action, &previous[i]);
      if (previous[i].sa_handler == SIG_IGN) sigaction(signals[i], &previous[i], nullptr);
    }
  }
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;
  ~InterruptWatch() {
    for (std::size_t i = 0; i < signals.size(); ++i) sigaction(signals[i], &previous[i], nullptr);
  }
  static constexpr std::array signals{SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, signals.size()> previous{};
};

std::pair<int, int> parse_shard(const std::string& text) {
  int index = -1, count = -1;
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, index);
  if (first.ec == std::errc{} && first.ptr != end && *first.ptr == '/') {
    const auto second = std::from_chars(first.ptr + 1, end, count);
    if (second.ec == std::errc{} && second.ptr == end && count >= 1 && index >= 0 && index < count) return {index, count};
  }
  throw UsageError("--shard: '" + text + "' is not I/N with 0 <= I < N");
}

Tier tier_named(const std::string& text) { return text == "quick" ? Tier::quick : text == "full" ? Tier::full : Tier::nightly; }

bool wanted(const Property& property, const std::string& direction) {
  return direction == "both" || (direction == "backward") == (property.direction == Direction::backward);
}

/// Judges every kernel on one recorded problem.
Outcome run_recorded(const Plan& plan, const Problem& recorded, const std::string& path,
                     const std::function<void(const CaseResult&)>& on_result) {
  Judge judge;
  Outcome outcome;
  for (const Kernel* kernel : plan.kernels) {
    try {
      for (CaseResult& result : recorded_cases(*kernel, recorded, path, judge)) {
        ++outcome.planned;
        ++outcome.ran;
        on_result(result);
      }
    } catch (const CallAbandoned&) { // then there is an interruption too
    }
    if (interrupted) {
      outcome.stopped = true;
      break;
    }
  }
  return outcome;
}

/// Distinguishes runs whose cases must not be mixed: tier, seed and the content of plug-in libraries. What a command or a
/// Python function will do cannot be told from its name, so such a run starts anew.
std::string plan_mark(const VerifyArguments& arguments) {
  if (arguments.resume && (!arguments.sources.commands.empty() || !arguments.sources.functions.empty()))
    throw UsageError("--resume cannot tell whether a worker program or Python function is still the same; run it anew");
  std::string content;
  for (const std::string& path : arguments.sources.plugins) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) continue; // what it is is said where it is loaded
    std::ifstream file(path, std::ios::binary);
    content.append(std::istreambuf_iterator<char>(file), {});
  }
  const std::string mark = content.empty() ? "" : "-" + sha256_of(std::as_bytes(std::span(content))).substr(0, 16);
  return mark + "-" + arguments.selection.tier + "-" + std::to_string(arguments.selection.seed);
}

/// Found cases go by a name of their own beside those of the regimes. Takes the patterns that mean them out of the list.
std::vector<const FoundCase*> wanted_found_cases(std::vector<std::string>& regimes_wanted, bool& only_these) {
  const std::string name(found_cases_name);
  const bool wanted = regimes_wanted.empty() || std::ranges::any_of(regimes_wanted, [&](const auto& p) { return glob_matches(p, name); });
  const auto named = std::erase(regimes_wanted, name);
  only_these = named > 0 && regimes_wanted.empty();
  std::vector<const FoundCase*> result;
  if (wanted)
    for (const FoundCase& found : found_cases()) result.push_back(&found);
  return result;
}

/// Failures of one kernel seldom have more than a few causes; each costs at most about a second.
constexpr int localised_per_kernel = 6;

void announce(const Context& context, const CaseResult& failure) {
  std::fprintf(stderr, "%s: %s %s on %s: %s\n  %s\n", failure.kernel.c_str(), std::string(spoken(failure.finding.verdict)).c_str(),
               failure.property.c_str(), failure.regime.c_str(), failure.finding.detail.c_str(),
               replay_command(context, failure.replay).c_str());
}

/// The modules' cases behind the kernels', within what is left of the time budget; finished ones of a resumed run are not run
/// again.
void run_modules(const ModulePlan& modules, const VerifyArguments& arguments, std::chrono::steady_clock::time_point started,
                 const std::unordered_set<std::string>& finished, const std::function<void(const CaseResult&)>& keep, Outcome& outcome) {
  const auto spent = [&] {
    return interrupted || (arguments.time_budget &&
                           std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count() > *arguments.time_budget);
  };
  const Outcome done = run_module_campaign(modules, finished, keep, spent);
  outcome.planned += done.planned, outcome.ran += done.ran, outcome.skipped += done.skipped;
  outcome.stopped = outcome.stopped || done.stopped;
}

} // namespace

int verify_command(const VerifyArguments& arguments) {
  const auto started = std::chrono::steady_clock::now();
  const std::string mark = plan_mark(arguments);
  const std::vector<Kernel> kernels = kernels_of(arguments.sources);
  Plan plan{.kernels = matching<Kernel>("kernel", arguments.selection.kernels, kernels),
            .properties = {},
            .regimes = {},
            .found = {},
            .tier = tier_named(arguments.selection.tier),
            .seed = arguments.selection.seed,
            .time_budget = arguments.time_budget,
            .threads = arguments.selection.threads,
            .shrink_seconds = arguments.shrink_seconds,
            .localised_per_kernel = localised_per_kernel,
            .finished = {},
            .on_failure = {}};
  if (!arguments.selection.modules.empty())
    plan.kernels.clear();
  else {
    plan.properties = matching<Property>("property", arguments.selection.properties, properties());
    bool only_found = false;
    std::vector<std::string> regimes_wanted = arguments.selection.regimes;
    plan.found = wanted_found_cases(regimes_wanted, only_found);
    if (!only_found) plan.regimes = matching<Regime>("regime", regimes_wanted, regimes());
  }
  std::tie(plan.shard, plan.shards) = parse_shard(arguments.shard);
  std::erase_if(plan.properties, [&](const Property* property) { return !wanted(*property, arguments.selection.direction); });

  std::optional<Problem> recorded;
  if (!arguments.inputs.empty()) recorded = problem_from(arguments.inputs);
  ModulePlan modules = module_plan(arguments.selection, arguments.sources.any() || recorded);
  modules.shard = plan.shard, modules.shards = plan.shards;

  demand_room_for_folder(arguments.out);
  for (const char* file : {"report.json", "cases.jsonl", "junit.xml", "summary.md"}) demand_room_for_file(arguments.out + "/" + file);
  make_folder(arguments.out);
  const FolderLock lock(arguments.out);
  const InterruptWatch watch; // until the results are written
  Results results{.context = this_context(), .outcome = {}, .kernels = {}, .groups = {}, .not_supported = {}};
  results.context.command = arguments.command;
  results.context.replay = replay_prefix(arguments.sources);
  results.context.tier = recorded ? "recorded" : arguments.selection.tier;
  results.context.seed = arguments.selection.seed;
  for (const Kernel* kernel : plan.kernels) results.kernels.push_back(tally_of(*kernel));
  for (const ModuleSuite* suite : modules.suites) results.kernels.push_back(tally_of(*suite));

  // Only cases of the same program, kernels and plan count as done when a run is resumed.
  results.context.program += mark;
  const std::string log_path = arguments.out + "/cases.jsonl";
  if (arguments.resume) {
    const RecordedCases recorded_before = read_case_log(log_path, results.context.program);
    for (const CaseResult& earlier : recorded_before.cases) {
      plan.finished.insert(case_key(earlier));
      add(results, earlier);
    }
    if (recorded_before.cases.empty() && recorded_before.other_programs > 0)
      std::fprintf(stderr, "%s holds cases of another seed, tier, program or plug-in only: they do not count, and the run begins anew\n",
                   log_path.c_str());
  }
  CaseLog log(log_path, results.context.program, arguments.resume);

  ProgressLine progress;
  plan.on_failure = [&](const CaseResult& failure) {
    progress.clear();
    announce(results.context, failure);
  };
  plan.on_localised = [&](const CaseResult& failure) {
    progress.clear();
    std::fprintf(stderr, "%s, %s on %s: %s\n", failure.kernel.c_str(), failure.property.c_str(), failure.regime.c_str(),
                 failure.localised.c_str());
  };
  plan.on_unshrunk = [&](const std::string& kernel, double seconds) {
    progress.clear();
    std::fprintf(stderr, "%s: after %.0f s no more of its crashes and time-outs are made simpler (--shrink-seconds)\n", kernel.c_str(),
                 seconds);
  };
  const auto keep = [&](const CaseResult& result) {
    log.append(result);
    add(results, result);
  };
  if (arguments.selection.modules.empty())
    results.outcome = recorded ? run_recorded(plan, *recorded, arguments.inputs, keep)
                               : run_campaign(
                                     plan, keep, [&](const Progress& now) { progress.show(now); }, [] { return interrupted.load(); });
  if (!results.outcome.stopped) run_modules(modules, arguments, started, plan.finished, keep, results.outcome);
  progress.clear();
  log.sync();
  results.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  results.figures = module_figures(results);
  write_result_files(results, arguments.out);
  std::fputs(console_table(results, table_options_for(STDOUT_FILENO)).c_str(), stdout);
  std::printf("results in %s/: report.json cases.jsonl junit.xml summary.md\n", arguments.out.c_str());
  if (results.outcome.stopped) {
    const bool resumable = arguments.sources.commands.empty() && arguments.sources.functions.empty(); // as plan_mark says
    std::printf(resumable ? "stopped early; the same command with --resume goes on from here\n" : "stopped early\n");
  }
  return exit_status(results);
}

} // namespace kdacheck
