#include "commands.hpp"

#include "../golden/recorded.hpp"
#include "../properties/localise/localise.hpp"
#include "../properties/modules/module_campaign.hpp"
#include "../properties/selection.hpp"
#include "../properties/transform.hpp"
#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "recorded_cases.hpp"
#include "reproduction.hpp"
#include "words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace kdacheck {
namespace {

template <class Named> const Named& one_named(const std::string& kind, const std::string& name, std::span<const Named> all) {
  for (const Named& item : all)
    if (item.name == name) return item;
  std::vector<std::string> names;
  for (const Named& item : all) names.push_back(item.name);
  refuse_unknown(kind, name, names);
}

void describe(const Recipe& recipe) {
  const Shape& s = recipe.shape;
  fmt::print("case      {}: B {}, T {}, H {}, HV {}, K {}, V {}", recipe.regime, s.B, s.T, s.H, s.HV, s.K, s.V);
  if (!recipe.lengths.empty()) fmt::print(", packed [{}]", fmt::join(recipe.lengths, " "));
  fmt::print("; gate {}, beta {}{}\n", name(recipe.options.gate), name(recipe.options.beta),
             recipe.options.l2norm ? ", l2norm inside" : "");
}

/// Kernel's number and the exact one at the place of an output element.
void show_element(const Kernel& kernel, const Problem& problem, const Place& place) {
  if (place.tensor != "o" || place.token < 0 || place.head < 0) return;
  const auto all = sequences(problem);
  const auto n = static_cast<std::size_t>(std::max<std::int64_t>(0, place.sequence));
  if (n >= all.size()) return;
  const std::int64_t row = all[n].first + place.token;
  const auto at =
      static_cast<std::size_t>((row * problem.shape.HV + place.head) * problem.shape.V + std::max<std::int64_t>(0, place.channel));
  const Run run = run_forward(kernel, problem);
  const Truth truth = forward_truth(problem, Arithmetic::double_double);
  if (at >= run.o.size() || at >= truth.o.value.size()) return;
  fmt::print("there     kernel {:.9g}, exact {:.17g} (radius {:.1e}), error {:.3e}\n", run.o[at], truth.o.value[at], truth.o.radius[at],
             static_cast<double>(run.o[at]) - truth.o.value[at]);
}

void describe(const CaseResult& result) {
  const Finding& finding = result.finding;
  fmt::print("verdict   {}, error / bound {}\n", spoken(finding.verdict), short_figure(finding.bound_util));
  if (finding.place) fmt::print("where     {}\n", to_text(*finding.place));
  if (!finding.detail.empty()) fmt::print("detail    {}\n", finding.detail);
  if (!finding.oracle.empty()) fmt::print("oracle    {}, as its radius in fp64 is above a hundredth of a bound\n", finding.oracle);
  const Metrics& metrics = finding.metrics;
  if (metrics.max_abs_err >= 0)
    fmt::print("errors    max_abs_err {:.3e}, rms_rel_err {:.3e}, token_rel_err_max {:.3e}, ulp_max {:.1f}\n", metrics.max_abs_err,
               metrics.rms_rel_err, metrics.token_rel_err_max, metrics.ulp_max);
}

int status_of(Verdict verdict) { return is_failure(verdict) ? 1 : 0; }

int replay_recorded(const ReplayArguments& arguments, const std::string& path) {
  const std::string label = arguments.token.substr(0, arguments.token.find(':'));
  const std::vector<Kernel> kernels = kernels_of(arguments.sources);
  const Kernel& kernel = one_named<Kernel>("kernel", label, kernels);
  const Problem recorded = problem_from(path);
  Judge judge;
  Verdict gravest = Verdict::passed;
  for (const CaseResult& result : recorded_cases(kernel, recorded, path, judge)) {
    fmt::print("\nproperty  {}\n", result.property);
    describe(result);
    if (result.finding.place) show_element(kernel, rounded_to(recorded, input_formats(kernel.contract)), *result.finding.place);
    if (is_failure(result.finding.verdict)) gravest = result.finding.verdict;
  }
  return status_of(gravest);
}

} // namespace

int replay_command(const ReplayArguments& arguments) {
  if (!arguments.save.empty()) demand_room_for_folder(arguments.save);
  if (const auto result = replayed_module_case(arguments.token)) {
    if (!arguments.save.empty()) throw UsageError("--save writes cases of kernels; a module's case follows from its token");
    fmt::print("module    {}\nlaw       {} on {}, seed {}{}\n", result->module, result->law, result->regime, result->seed,
               result->fault.empty() ? "" : ", planted: " + result->fault);
    describe(case_of(*result));
    return status_of(result->finding.verdict);
  }
  if (const auto path = recorded_path(arguments.token)) return replay_recorded(arguments, *path);
  const Replay replay = replay_from_token(arguments.token);
  std::vector<Kernel> kernels = kernels_of(arguments.sources);
  append_kernels_of_gate_power(kernels, replay.kernel);
  const Kernel& kernel = one_named<Kernel>("kernel", replay.kernel, kernels);
  const Property& property = one_named("property", replay.property, properties());
  Judge judge;
  const CaseResult result = run_case(kernel, property, replay.recipe, judge);
  fmt::print("kernel    {}: {}\ncontract  {}\nproperty  {}: {}\n", kernel.name, kernel.summary, to_text(kernel.contract), property.name,
             property.claim);
  describe(replay.recipe);
  describe(result);
  const Problem problem = make_problem(replay.recipe, input_formats(kernel.contract));
  if (result.finding.place) show_element(kernel, problem, *result.finding.place);
  if (is_failure(result.finding.verdict) && result.finding.verdict != Verdict::crashed && result.finding.verdict != Verdict::timed_out)
    fmt::print("stage     {}\n", to_text(localise(kernel, property, replay.recipe, judge)));
  if (!arguments.save.empty()) {
    make_folder(arguments.save);
    save_problem(arguments.save + "/case.safetensors", with_cotangents_in(problem, kernel.contract.output), {{"about", result.replay}});
    write_atomically(arguments.save + "/reproduce.py", python_reproduction(problem, result));
    write_atomically(arguments.save + "/reproduce.cpp", cpp_reproduction(result, arguments.sources));
    fmt::print("saved     {0}/case.safetensors, {0}/reproduce.py, {0}/reproduce.cpp\n", arguments.save);
  }
  return status_of(result.finding.verdict);
}

} // namespace kdacheck
