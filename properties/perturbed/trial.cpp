#include "trial.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

namespace kdacheck {

Trial::Trial(const Subject& subject, const Recipe& from)
    : kernel(subject.kernel), contract(subject.kernel.contract), judge(subject.judge), recipe(from),
      problem(with_cotangents_in(make_problem(from, input_formats(subject.kernel.contract)), subject.kernel.contract.output)) {}

Problem Trial::make(const Recipe& changed) const {
  const Problem made = with_cotangents_in(make_problem(fitted(changed, contract), input_formats(contract)), contract.output);
  if (const auto why = outside_domain(contract, made)) does_not_apply(*why);
  return made;
}

Recipe Trial::plain() const {
  const auto offers = [](const auto& forms, auto form) { return std::ranges::find(forms, form) != forms.end(); };
  Recipe changed = recipe;
  changed.options.l2norm = false;
  changed.options.beta = BetaForm::value;
  changed.options.gate = offers(contract.gates, GateForm::log_decay) ? GateForm::log_decay : GateForm::absent;
  applies_if(contract.l2norm_outside, "the kernel normalises every key");
  applies_if(offers(contract.gates, changed.options.gate), "the kernel takes raw gates only");
  applies_if(recipe.options.rule == Rule::dplr || offers(contract.betas, BetaForm::value), "the kernel takes logits of beta only");
  return changed;
}

std::int64_t Trial::longest(const Problem& of) {
  const auto members = sequences(of);
  return std::ranges::max_element(members, {}, &Sequence::length)->index;
}

std::int64_t Trial::pick(std::int64_t below) {
  // splitmix64 of (seed, how often asked): any well mixed function of the two would do
  std::uint64_t z = recipe.seed + 0x9e3779b97f4a7c15u * ++picks_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<std::int64_t>((z ^ (z >> 31)) % static_cast<std::uint64_t>(below));
}

bool Trial::supports(const Problem& other) const { return !malformed(other) && !outside_domain(contract, other); }

void Trial::does_not_apply(std::string why) const {
  throw TrialEnded{{.verdict = Verdict::not_supported, .bound_util = 0, .place = {}, .detail = std::move(why), .metrics = {}}};
}

void Trial::applies_if(bool condition, std::string_view why) const {
  if (!condition) does_not_apply(std::string(why));
}

void Trial::broken(std::string detail, std::optional<Place> place, double bound_util) const {
  throw TrialEnded{{.verdict = Verdict::failed_property,
                    .bound_util = bound_util,
                    .place = std::move(place),
                    .detail = std::move(detail),
                    .metrics = {}}};
}

Run Trial::answered(Run run) const {
  if (run.refused) broken("refused a problem inside its domain: " + *run.refused, std::nullopt, std::numeric_limits<double>::infinity());
  return run;
}

Run Trial::forward(const Problem& of, const RunOptions& options) {
  if (const auto why = outside_domain(contract, of)) does_not_apply(*why);
  return answered(run_forward(kernel, of, options));
}

Run Trial::decode(const Problem& of, const RunOptions& options) {
  applies_if(static_cast<bool>(kernel.decode), "the kernel has no decode step");
  applies_if(of.cu_seqlens.empty(), "a decode step takes no packed sequences");
  Contract any_length = contract;
  any_length.T = contract.decode;
  any_length.initial_state = true;
  if (const auto why = outside_domain(any_length, of)) does_not_apply(*why);
  return answered(run_decode(kernel, of, options));
}

std::vector<Run> Trial::answered(std::vector<Run> runs) const {
  for (Run& run : runs) run = answered(std::move(run));
  return runs;
}

void Trial::all_inside(std::span<const Problem> problems) const {
  for (const Problem& of : problems)
    if (const auto why = outside_domain(contract, of)) does_not_apply(*why);
}

std::vector<Run> Trial::forward_in_turn(std::span<const Problem> problems) {
  all_inside(problems);
  return answered(run_forward_in_turn(kernel, problems));
}

Contract Trial::contract_of_decode() const {
  Contract chain = contract;
  chain.order = Order::recurrence;
  chain.chunk = 1;
  return chain;
}

void Trial::expect_true_decode(const Problem& of, const Run& run, std::string_view what) {
  add(judge.forward(contract_of_decode(), of, run), what);
}

void Trial::add(Finding finding, std::string_view what) {
  ++compared_;
  if (!what.empty() && finding.verdict != Verdict::passed) finding.detail = fmt::format("{}: {}", what, finding.detail);
  if (is_failure(finding.verdict)) throw TrialEnded{std::move(finding)};
  worst_ = graver(std::move(worst_), std::move(finding));
}

void Trial::expect_true(const Problem& of, const Run& run, std::string_view what) { add(judge.forward(contract, of, run), what); }

void Trial::expect_same(const Problem& of, const Run& expected, const Run& got, std::string_view what, Equality equality) {
  if (contract.repeat != Sameness::bitwise) {
    unpromised_ = true;
    return;
  }
  ++compared_;
  if (auto found = first_difference(of, contract.chunk, expected, got, equality))
    broken(fmt::format("{}: {}", what, found->values), std::move(found->place), std::numeric_limits<double>::infinity());
}

void Trial::expect_same_or_true(Sameness promised, const Problem& of, const Run& expected, const Run& got, std::string_view what,
                                Equality equality) {
  if (promised == Sameness::bitwise && contract.repeat == Sameness::bitwise) return expect_same(of, expected, got, what, equality);
  expect_true(of, got, what);
}

void Trial::expect(bool holds, std::string_view what, std::optional<Place> place) {
  ++compared_;
  if (!holds) broken(std::string(what), std::move(place), std::numeric_limits<double>::infinity());
}

void Trial::expect_within(double error, double bound, std::string_view what, std::optional<Place> place) {
  ++compared_;
  const double ratio = error == 0 ? 0 : error / bound;
  if (!(error <= bound)) broken(fmt::format("{}: off by {:.3g} where {:.3g} is allowed", what, error, bound), std::move(place), ratio);
  worst_.bound_util = std::max(worst_.bound_util, ratio);
}

Finding Trial::finding() const {
  if (compared_ == 0)
    does_not_apply(unpromised_ ? "repeat=none: the kernel does not promise equal numbers" : "nothing to compare on this case");
  return worst_;
}

} // namespace kdacheck
