#include "commands.hpp"

#include "../golden/recorded.hpp"
#include "../properties/cases/found_cases.hpp"
#include "../properties/search.hpp"
#include "../properties/selection.hpp"
#include "../properties/transform.hpp"
#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "reproduction.hpp"
#include "words.hpp"

#include <fmt/format.h>

#include <cstdio>

namespace kdacheck {

int search_command(const SearchArguments& arguments) {
  if (!arguments.save.empty()) demand_room_for_folder(arguments.save); // not after a minute
  if (!arguments.keep.empty()) demand_found_cases(arguments.keep);
  std::vector<Kernel> kernels = kernels_of(arguments.sources);
  append_kernels_of_gate_power(kernels, arguments.kernel);
  const Kernel& kernel = *matching<Kernel>("kernel", {arguments.kernel}, kernels).front();
  const bool backward = arguments.direction == "backward";
  if (backward && !kernel.backward) throw UsageError(kernel.name + " has no backward pass");
  const SearchPlan plan{.kernel = &kernel,
                        .regimes = matching<Regime>("regime", arguments.regimes, regimes()),
                        .tier = arguments.tier == "quick"  ? Tier::quick
                                : arguments.tier == "full" ? Tier::full
                                                           : Tier::nightly,
                        .backward = backward,
                        .seed = arguments.seed,
                        .seconds = arguments.seconds,
                        .shrink_seconds = arguments.shrink_seconds,
                        .threads = arguments.threads};
  const std::string property = backward ? "gradients-agree-with-the-oracle" : "agrees-with-the-oracle";
  Context context;
  context.replay = replay_prefix(arguments.sources);
  const auto token = [&](const Recipe& recipe) { return replay_token({kernel.name, property, recipe}); };
  double worst = 0;
  const SearchResult result = search_worst(plan, [&](const Elite& elite, std::size_t evaluations) {
    if (!(elite.finding.bound_util > worst)) return;
    worst = elite.finding.bound_util;
    fmt::print(stderr, "after {} cases: error / bound {} ({})\n", evaluations, short_figure(worst), spoken(elite.finding.verdict));
  });
  if (result.elites.empty()) {
    fmt::print(stderr, "kdacheck: no case lies in the domain of {}\n", kernel.name);
    return 5;
  }
  fmt::print("{} cases of {} {}; the worst of each kind (keys, gates):\n\n{:<18} {:>11}  {}\n", result.evaluations, kernel.name,
             arguments.direction, "verdict", "error/bound", "case");
  std::size_t shown = 0;
  for (const Elite& elite : result.elites)
    if (shown++ < 10)
      fmt::print("{:<18} {:>11}  {}\n", spoken(elite.finding.verdict), short_figure(elite.finding.bound_util),
                 replay_command(context, token(elite.recipe)));
  const Recipe& simplest = result.shrunk ? *result.shrunk : result.elites.front().recipe;
  if (result.shrunk) fmt::print("\nsimplest that still fails:\n  {}\n", replay_command(context, token(*result.shrunk)));
  if (!arguments.keep.empty()) {
    const Finding& finding = result.elites.front().finding;
    FoundCase found{.property = property, .recipe = simplest, .why = {}};
    found.why.push_back(fmt::format("{} of {}: error / bound {} ({}); search --seed {}, {} cases{}",
                                    finding.place ? finding.place->tensor : "", kernel.name, short_figure(finding.bound_util),
                                    spoken(finding.verdict), arguments.seed, result.evaluations, result.shrunk ? ", shrunk" : ""));
    fmt::print("{} {}\n", keep_found_case(arguments.keep, found) ? "kept in" : "stands already in", arguments.keep);
  }
  if (!arguments.save.empty()) {
    const Problem problem = make_problem(simplest, input_formats(kernel.contract));
    CaseResult found{
        .kernel = kernel.name, .property = property, .regime = simplest.regime, .replay = token(simplest), .shrunk = {}, .finding = {}};
    make_folder(arguments.save);
    save_problem(arguments.save + "/case.safetensors", with_cotangents_in(problem, kernel.contract.output), {{"about", found.replay}});
    write_atomically(arguments.save + "/reproduce.py", python_reproduction(problem, found));
    write_atomically(arguments.save + "/reproduce.cpp", cpp_reproduction(found, arguments.sources));
    fmt::print("saved in {}/\n", arguments.save);
  }
  return result.failed() ? 1 : 0;
}

} // namespace kdacheck
