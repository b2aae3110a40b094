// What is not refused is computed: unsupported widths, lengths that do not add up (flash-linear-attention-npu #266,
// cuLA #41).

#include "../perturbed/trial.hpp"

#include <algorithm>
#include <utility>

namespace kdacheck::laws {
namespace {

std::vector<std::pair<std::vector<std::int64_t>, std::string>> malformed_lengths(std::int64_t T) {
  return {{{0, T - 1}, "cu_seqlens that end before T"},
          {{0, 1, T + 1}, "cu_seqlens that end after T"},
          {{1, T}, "cu_seqlens that begin after 0"},
          {{0, T, T - 1, T}, "cu_seqlens that decrease"}};
}

/// What the contract says that the kernel does not take: calls that are in order but for that.
std::vector<std::pair<Problem, std::string>> not_offered(const Contract& c, const Problem& problem) {
  std::vector<std::pair<Problem, std::string>> calls;
  const auto add = [&](std::string what) -> Problem& { return calls.emplace_back(problem, std::move(what)).first; };
  const Shape& s = problem.shape;
  if (!c.packed && s.B == 1 && s.T >= 2) add("packed sequences, which the contract does not offer,").cu_seqlens = {0, s.T};
  if (!c.initial_state)
    add("an initial state, which the contract does not offer,")
        .initial_state.assign(static_cast<std::size_t>(sequence_count(problem) * s.HV * s.K * s.V), 0.0f);
  if (c.scale_form != ScaleForm::any) add("a scale that the contract does not offer").options.scale *= 2;
  if (!c.l2norm_inside || !c.l2norm_outside)
    add("a normalisation that the contract does not offer").options.l2norm = !problem.options.l2norm;
  for (const BetaForm form : {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid})
    if (problem.options.rule == Rule::kda && std::ranges::find(c.betas, form) == c.betas.end())
      add("a form of beta that the contract does not offer").options.beta = form;
  if (problem.options.gate == GateForm::log_decay && std::ranges::find(c.gates, GateForm::sigmoid) == c.gates.end())
    add("a form of gate that the contract does not offer").options.gate = GateForm::sigmoid;
  return calls;
}

void law(Trial& trial) {
  const Contract& c = trial.contract;
  const Problem& problem = trial.problem;
  trial.forward(problem);
  const auto refuses = [&](const Problem& wrong, const std::string& what) {
    const Run run = run_forward(trial.kernel, wrong);
    trial.expect(run.refused && !run.refused->starts_with("threw: "), what + " was not refused");
    trial.expect(run.trespasses.empty(), what + ": " + (run.trespasses.empty() ? "" : run.trespasses.front()));
  };
  if (c.packed && problem.shape.B == 1 && problem.shape.T >= 2) {
    Problem wrong = problem;
    for (const auto& [lengths, what] : malformed_lengths(problem.shape.T)) {
      wrong.cu_seqlens = lengths;
      const auto N = static_cast<std::size_t>(sequence_count(wrong));
      wrong.initial_state.resize(
          problem.initial_state.empty() ? 0 : N * static_cast<std::size_t>(problem.shape.HV * problem.shape.K * problem.shape.V));
      refuses(wrong, what);
    }
  }
  Choice uneven = everything(problem);
  uneven.key_heads = {0, 0};
  uneven.value_heads = {0, 0, 0};
  refuses(chosen(problem, uneven), "three value heads on two key heads");
  if (!c.K.contains(1)) {
    Choice narrow = everything(problem);
    narrow.key_channels = {0};
    refuses(chosen(problem, narrow), "a K outside the contract");
  }
  if (c.V.most < 100000) {
    Choice wide = everything(problem);
    wide.value_channels.assign(static_cast<std::size_t>(c.V.most) + 1, 0);
    refuses(chosen(problem, wide), "a V outside the contract");
  }
  for (const auto& [wrong, what] : not_offered(c, problem)) refuses(wrong, what);
}

} // namespace

Property malformed_calls_are_refused() {
  return {
      .name = "malformed-calls-are-refused",
      .claim = "a call that contradicts itself or the contract is refused, and nothing is written",
      .excluded = [](const Contract& contract) { return std::string(contract.validates ? "" : "validates=no: arguments are not checked"); },
      .regimes = {"usual-decay", "gaussian-keys"},
      .check = tried<law>};
}

} // namespace kdacheck::laws
