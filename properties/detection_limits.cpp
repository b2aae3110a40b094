#include "detection_limits.hpp"

#include "../kernels/faults/correct_variants.hpp"
#include "judge.hpp"
#include "perturbed/lanes.hpp"
#include "team.hpp"
#include "transform.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>

namespace kdacheck {
namespace {

/// fp32 holds no relative change below 2^-24; two more show that the search ends by itself.
constexpr int finest = 26;

/// x (1 +- 2^-e), rounded to fp32.
float off(float x, std::size_t place, int exponent) {
  const double sign = scatter(place) & 1u ? 1.0 : -1.0;
  return static_cast<float>(static_cast<double>(x) * (1.0 + sign * std::ldexp(1.0, -exponent)));
}

std::vector<float> off(std::vector<float> numbers, int exponent, Format stored, std::size_t first = 0,
                       std::size_t count = ~std::size_t{0}) {
  for (std::size_t i = first; i < numbers.size() && i - first < count; ++i) numbers[i] = round_to(stored, off(numbers[i], i, exponent));
  return numbers;
}

/// Another right kernel under the same contract that takes its inputs in fp32.
Kernel reader_of(const Kernel& right) {
  Contract contract = right.contract;
  contract.input = contract.gate_input = contract.beta_input = Format::fp32;
  return right_under("reader", contract);
}

/// Everything of one kernel on one case that the figures share.
struct Bench {
  const Kernel& kernel;
  Kernel reader; ///< the same with inputs in fp32
  Problem problem;
  Run forward, backward;

  Bench(const Kernel& right, Problem of) : kernel(right), problem(std::move(of)) {
    reader = reader_of(kernel);
    forward = run_forward(kernel, problem);
    if (kernel.backward) backward = run_backward(kernel, problem);
  }

  /// The gate's verdict on the kernel with an error in `what`; nothing if the case has no such tensor.
  std::optional<Finding> judged(Judge& judge, const std::string& what, int exponent) const {
    const Contract& contract = kernel.contract;
    Run run = forward;
    const auto width = static_cast<std::size_t>(problem.shape.V);
    const std::size_t token = run.o.size() / width / 2 * width, row = run.final_state.size() / width / 2 * width;
    if (what == "o") run.o = off(run.o, exponent, contract.output);
    if (what == "one token of o") run.o = off(run.o, exponent, contract.output, token, width);
    if (what == "final_state") run.final_state = off(run.final_state, exponent, Format::fp32);
    if (what == "one row of final_state") run.final_state = off(run.final_state, exponent, Format::fp32, row, width);
    for (Input input : all_inputs) {
      const std::string name(kdacheck::name(input));
      if (problem[input].empty() && (what == "input " + name || what == "d" + name)) return std::nullopt;
      if (what == "input " + name) {
        Problem misread = problem;
        misread.formats = input_formats(reader.contract);
        misread[input] = off(misread[input], exponent, Format::fp32);
        run = run_forward(reader, misread);
        if (run.refused) throw std::logic_error("detection limits: " + kernel.name + " refused: " + *run.refused);
      }
      if (what == "d" + name) {
        if (!kernel.backward) return std::nullopt;
        Run gradients = backward;
        auto& gradient = gradients.gradient[static_cast<std::size_t>(input)];
        const bool parameter = input == Input::initial_state || input == Input::A_log || input == Input::dt_bias;
        gradient = off(gradient, exponent, parameter ? Format::fp32 : contract.gradient);
        return judge.backward(contract, problem, gradients);
      }
    }
    return judge.forward(contract, problem, run);
  }
};

const std::vector<std::string>& everything() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> list{"o", "one token of o", "final_state", "one row of final_state"};
    for (Input input : all_inputs) list.push_back("input " + std::string(name(input)));
    for (Input input : all_inputs) list.push_back("d" + std::string(name(input)));
    return list;
  }();
  return all;
}

std::optional<Problem> case_of(const Regime& regime, const Contract& contract, std::uint64_t seed) {
  Recipe recipe = regime.draw(seed, Tier::quick);
  recipe.shape = {.B = 1, .T = 96, .H = 1, .HV = 1, .K = 32, .V = 32};
  recipe.lengths.clear();
  recipe.loss = LossPattern::everywhere;
  if (recipe.state == StatePattern::absent) recipe.state = StatePattern::gaussian;
  recipe = fitted(recipe, contract);
  if (malformed(recipe)) return std::nullopt;
  Problem problem = with_cotangents_in(make_problem(recipe, input_formats(contract)), contract.output);
  if (malformed(problem) || outside_domain(contract, problem)) return std::nullopt;
  return problem;
}

std::string label_of(const std::string& name) {
  for (std::string_view prefix : {"correct.", "cpu."})
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  return name;
}

std::vector<Limit> limits_of(const Kernel& kernel, const Regime& regime, const LimitsPlan& plan) {
  if (!can_have_limits(kernel, regime)) return {};
  Judge judge;
  std::vector<std::unique_ptr<Bench>> benches;
  for (int seed = 0; seed < plan.seeds; ++seed) {
    auto problem = case_of(regime, kernel.contract, plan.first_seed + static_cast<std::uint64_t>(seed));
    if (!problem) return {};
    benches.push_back(std::make_unique<Bench>(kernel, std::move(*problem)));
    const Bench& bench = *benches.back();
    for (const Finding& plain : {judge.forward(kernel.contract, bench.problem, bench.forward),
                                 kernel.backward ? judge.backward(kernel.contract, bench.problem, bench.backward) : Finding{}})
      if (is_failure(plain.verdict))
        throw std::logic_error("detection limits: " + kernel.name + " is refused on " + regime.name + " without an error: " + plain.detail);
  }
  std::vector<Limit> result;
  for (const std::string& what : everything()) {
    bool applies = true;
    const auto seen = [&](int exponent) { // on every seed
      for (const auto& bench : benches) {
        const auto finding = bench->judged(judge, what, exponent);
        applies = applies && finding.has_value();
        if (!finding || !is_failure(finding->verdict)) return false;
      }
      return true;
    };
    std::optional<int> largest;
    if (seen(1)) {
      int detected = 1, missed = finest + 1;
      while (missed - detected > 1) {
        const int middle = (detected + missed) / 2;
        (seen(middle) ? detected : missed) = middle;
      }
      largest = detected;
    }
    if (!applies) continue;
    result.push_back({.contract = to_text(kernel.contract),
                      .label = label_of(kernel.name),
                      .what = what,
                      .regime = regime.name,
                      .exponent = largest,
                      .seeds = plan.seeds});
  }
  return result;
}

template <class Named> const Named* named(std::span<const Named> all, std::string_view name) {
  const auto found = std::ranges::find(all, name, [](const Named& each) { return std::string_view(each.name); });
  return found == all.end() ? nullptr : &*found;
}

} // namespace

std::vector<Limit> detection_limits(const LimitsPlan& plan, const std::function<void(const std::string&)>& on_progress) {
  const std::size_t cells = plan.kernels.size() * plan.regimes.size();
  std::vector<std::vector<Limit>> of_cell(cells);
  std::size_t done = 0;
  std::mutex reporting;
  share_out(cells, plan.threads, [&](std::size_t i) {
    const Kernel& kernel = *plan.kernels[i / plan.regimes.size()];
    const Regime& regime = *plan.regimes[i % plan.regimes.size()];
    of_cell[i] = limits_of(kernel, regime, plan);
    const std::lock_guard lock(reporting);
    ++done;
    if (on_progress) on_progress(std::to_string(done) + " of " + std::to_string(cells) + ": " + kernel.name + " on " + regime.name);
  });
  std::vector<Limit> all;
  for (auto& some : of_cell) all.insert(all.end(), some.begin(), some.end());
  return all;
}

bool can_have_limits(const Kernel& kernel, const Regime& regime) {
  return !regime.name.starts_with("dplr-") || kernel.contract.rules == std::vector{Rule::dplr};
}

std::vector<const Kernel*> usual_kernels_for_limits() {
  std::vector<const Kernel*> kernels;
  for (std::string_view name : {"cpu.recurrence.fp32",           "correct.fp32.chunk16",           "correct.fp32.chunk64",
                                "correct.fp32.undeclared_order", "correct.wy.fp32.chunk128",       "correct.tf32.chunk16",
                                "correct.wy.tf32.chunk32",       "correct.fp16.chunk16",           "correct.bf16.chunk16",
                                "correct.bf16.chunk64",          "correct.wy.bf16.chunk16",        "correct.bf16.scores_tf32",
                                "correct.bf16.state_bf16",       "correct.bf16.all_stored",        "correct.fp32.state_fp16",
                                "correct.fp32.cumsum_bf16",      "correct.recurrence.bf16_inputs", "cpu.dplr.recurrence.fp32",
                                "cpu.dplr.chunk16.fp32",         "cpu.dplr.chunk64.bf16"}) {
    const Kernel* kernel = named(correct_variants(), name);
    if (!kernel) kernel = named(built_in_kernels(), name);
    if (!kernel) throw std::logic_error("detection limits: nothing is named " + std::string(name));
    kernels.push_back(kernel);
  }
  return kernels;
}

std::vector<const Regime*> usual_regimes_for_limits() {
  std::vector<const Regime*> chosen;
  for (std::string_view name : {"gaussian-keys", "slow-decay", "near-identical-keys", "alternating-keys", "strong-decay", "pure-transport",
                                "converged-memory", "tiny-keys", "published-init", "dplr-benign"}) {
    chosen.push_back(named(regimes(), name));
    if (!chosen.back()) throw std::logic_error("detection limits: no regime is named " + std::string(name));
  }
  return chosen;
}

} // namespace kdacheck
