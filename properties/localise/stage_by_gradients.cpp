// Which quantity of the exact reverse chunk must have been another for all gradients to become what a kernel wrote?
//
// The last wrong chunk (the backward pass goes from the last to the first) is run again alone, from the exact state before and
// against the exact cotangent after it, as few tokens and channels of it as still go wrong. For every quantity on the way the
// gradients are linear in what it is made by: one factor, a factor per token, or any numbers at all. The stage is that of the
// explanation with the fewest numbers after which nothing but the contract's noise is left in any gradient. For KDA only.

#include "../experiments.hpp"
#include "wrong_gradients.hpp"

#include "../transform.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdacheck {
namespace {

StageOpinion unclear(std::string why) { return {.stage = {}, .confidence = 0, .grounds = std::move(why)}; }

constexpr std::array sites{
    Site{Midway::dbeta_of_keys, Freedom::factor, Stage::scores, "what dL adds to dbeta"},
    Site{Midway::dbeta_of_own, Freedom::factor, Stage::residual, "dZ . (V - kd S) in dbeta"},
    Site{Midway::dU_of_reads, Freedom::factor, Stage::output, "Aqk^T dO in dU"},
    Site{Midway::dU_of_end, Freedom::factor, Stage::state_carry, "kr dS' in dU"},
    Site{Midway::dAkk, Freedom::factor, Stage::scores, "dAkk"},
    Site{Midway::dAqk, Freedom::factor, Stage::scores, "dAqk"},
    Site{Midway::q_of_state, Freedom::factor, Stage::output, "dO S^T in dq"},
    Site{Midway::q_of_keys, Freedom::factor, Stage::scores, "dAqk in dq"},
    Site{Midway::k_of_erase, Freedom::factor, Stage::residual, "what is erased, in dk"},
    Site{Midway::k_of_end, Freedom::factor, Stage::state_carry, "U dS'^T in dk"},
    Site{Midway::k_of_reads, Freedom::factor, Stage::scores, "dAqk in dk"},
    Site{Midway::k_of_rows, Freedom::factor, Stage::scores, "dAkk in dk, by rows"},
    Site{Midway::k_of_columns, Freedom::factor, Stage::scores, "dAkk in dk, by columns"},
    Site{Midway::dg_end, Freedom::factor, Stage::gate_sum, "S . dS' in dg"},
    Site{Midway::dq, Freedom::factor, Stage::output, "dq as written"},
    Site{Midway::dk, Freedom::factor, Stage::inputs, "dk as written"},
    Site{Midway::dv, Freedom::factor, Stage::residual, "dv as written"},
    Site{Midway::dbeta, Freedom::factor, Stage::residual, "dbeta as written"},
    Site{Midway::dU_of_reads, Freedom::row_factors, Stage::output, "Aqk^T dO in dU, token by token"},
    Site{Midway::dU_of_end, Freedom::row_factors, Stage::state_carry, "kr dS' in dU, token by token"},
    Site{Midway::dAqk, Freedom::diagonal, Stage::scores, "the diagonal of dAqk"},
    Site{Midway::dk, Freedom::along_k, Stage::scores, "dk along k, as a diagonal of dAkk gives it"},
    Site{Midway::dv, Freedom::row_factors, Stage::residual, "dv, token by token"},
    Site{Midway::dbeta, Freedom::any, Stage::residual, "dbeta"},
    Site{Midway::q_of_keys, Freedom::row_factors, Stage::scores, "dAqk in dq, token by token"},
    Site{Midway::q_of_state, Freedom::row_factors, Stage::output, "dO S^T in dq, token by token"},
    Site{Midway::dq, Freedom::row_factors, Stage::output, "dq, token by token"},
    Site{Midway::k_of_erase, Freedom::row_factors, Stage::residual, "what is erased, in dk, token by token"},
    Site{Midway::k_of_end, Freedom::row_factors, Stage::state_carry, "U dS'^T in dk, token by token"},
    Site{Midway::k_of_erase_in_dk, Freedom::row_factors, Stage::residual, "what is erased, in dk alone"},
    Site{Midway::k_of_end_in_dk, Freedom::row_factors, Stage::state_carry, "U dS'^T in dk alone"},
    Site{Midway::k_of_reads_in_dk, Freedom::row_factors, Stage::scores, "dAqk in dk alone"},
    Site{Midway::k_of_rows_in_dk, Freedom::row_factors, Stage::scores, "dAkk in dk alone, by rows"},
    Site{Midway::k_of_columns_in_dk, Freedom::row_factors, Stage::scores, "dAkk in dk alone, by columns"},
    Site{Midway::dg, Freedom::any, Stage::gate_sum, "dg"},
    Site{Midway::dAkk, Freedom::lower, Stage::scores, "dAkk"},
    Site{Midway::dAqk, Freedom::lower, Stage::scores, "dAqk"},
    Site{Midway::dU, Freedom::of_reads, Stage::output, "Aqk in dU"},
    Site{Midway::inverse, Freedom::any, Stage::inverse, "T in dZ"},
    Site{Midway::read_state, Freedom::any, Stage::state_carry, "the state that is read"},
    Site{Midway::dU, Freedom::any, Stage::output, "dU"},
    Site{Midway::dZ, Freedom::any, Stage::residual, "dZ"},
    Site{Midway::dv, Freedom::any, Stage::residual, "dv"},
    Site{Midway::q_of_state, Freedom::any, Stage::output, "dO S^T in dq"},
    Site{Midway::k_of_erase, Freedom::any, Stage::residual, "what is erased, in dk"},
    Site{Midway::k_of_end, Freedom::any, Stage::state_carry, "U dS'^T in dk"},
    Site{Midway::dq, Freedom::any, Stage::output, "dq"},
    Site{Midway::dk, Freedom::any, Stage::inputs, "dk"},
    Site{Midway::dS, Freedom::any, Stage::state_carry, "d initial_state"},
};

constexpr std::array input_sites{
    InputSite{&ReverseInputs::d_end, Stage::state_carry, "the cotangent of the state at the end"},
    InputSite{&ReverseInputs::d_o, Stage::output, "dO"},
    InputSite{&ReverseInputs::G, Stage::gate_sum, "sums of log decay"},
    InputSite{&ReverseInputs::q, Stage::output, "q"},
    InputSite{&ReverseInputs::k, Stage::inputs, "k"},
    InputSite{&ReverseInputs::S, Stage::state_carry, "the state at the start"},
};

/// So few tokens up to the wrong one and so few channels that every fit is quick, or else the chunk itself, as long as it still goes
/// wrong.
std::optional<Problem> small_and_wrong(const Experiment& with, const Problem& problem, std::int64_t sequence, std::int64_t head,
                                       std::int64_t token, std::int64_t length, std::int64_t C) {
  constexpr std::int64_t all = std::numeric_limits<std::int64_t>::max();
  struct Size {
    std::int64_t tokens, channels, values;
  };
  const auto wrong = [&](std::int64_t first, std::int64_t count, const Size& size) -> std::optional<Problem> {
    if (first > 0 && !with.kernel.contract.initial_state) return std::nullopt;
    Problem chunk = chunk_alone(problem, sequence, head, first, count);
    Choice choice = everything(chunk);
    choice.key_channels = counted(std::min(size.channels, chunk.shape.K));
    choice.value_channels = counted(std::min(size.values, chunk.shape.V));
    chunk = with_cotangents_in(chosen(chunk, choice), with.kernel.contract.output);
    return with.fails(chunk).value_or(false) ? std::optional(std::move(chunk)) : std::nullopt;
  };
  const std::int64_t aligned = token / C * C;
  for (const Size& size : {Size{12, 12, 20}, {8, 16, 16}, {16, 16, 24}, {12, 64, 20}, {8, 128, 16}, {all, 16, 24}, {all, all, all}}) {
    const std::int64_t most = std::min(size.tokens, C), upto = std::min(most, token + 1);
    if (auto chunk = wrong(token + 1 - upto, upto, size)) return chunk;
    const std::int64_t end = std::min(aligned + C, length), count = std::min(size.tokens, end - aligned);
    for (const std::int64_t first : {end - count, aligned})
      if (auto chunk = wrong(first, count, size)) return chunk;
  }
  return std::nullopt;
}

StageOpinion best_of(const WrongGradients& wrong) {
  struct Candidate {
    Stage stage;
    std::string what;
    WrongGradients::Fit fit;
  };
  std::vector<Candidate> candidates;
  const auto offer = [&](Stage stage, const char* what, const WrongGradients::Fit& fit) {
    if (fit.tried && fit.explains) candidates.push_back({stage, what, fit});
  };
  WrongGradients::Fit dU, dZ;
  for (const Site& site : sites) {
    const auto fit = wrong.fit(site);
    if (site.freedom == Freedom::any && site.where == Midway::dU) dU = fit;
    if (site.freedom == Freedom::any && site.where == Midway::dZ) dZ = fit;
    offer(site.stage, site.what, fit);
  }
  offer(Stage::residual, "beta", wrong.fit_beta());
  for (const InputSite& site : input_sites) offer(site.stage, site.what, wrong.fit(site));
  const std::string which = wrong.wrong_ones() + (wrong.wrong_ones().find(',') == std::string::npos ? " is" : " are") + " wrong";
  if (candidates.empty()) return unclear(which + "; no single quantity explains it");
  std::ranges::stable_sort(candidates, {}, [](const Candidate& c) { return c.fit.unknowns; });
  const Candidate& best = candidates.front();
  const std::string grounds = fmt::format("{}: as another {} makes them (all but {:.2f})", which, best.what, best.fit.left);
  if (dU.explains && dZ.explains && best.fit.unknowns == dU.unknowns) { // dU and dZ explain the same: which is changed evenly?
    const double of_U = wrong.relative_change(Midway::dU, dU), of_Z = wrong.relative_change(Midway::dZ, dZ);
    if (2 * of_U < of_Z) return {.stage = Stage::output, .confidence = 0.6, .grounds = which + ": as another dU makes them"};
    if (2 * of_Z < of_U) return {.stage = Stage::residual, .confidence = 0.6, .grounds = which + ": as another dZ makes them"};
    return unclear(which + ": as another dU or dZ makes them");
  }
  double confidence = 0.85 * (1 - std::min(1.0, best.fit.left));
  for (const Candidate& other : candidates)
    if (other.stage != best.stage && other.fit.unknowns <= best.fit.unknowns + best.fit.unknowns / 4) {
      if (other.fit.unknowns == best.fit.unknowns) return unclear(grounds + fmt::format(", or another {}", other.what));
      confidence /= 2;
      break;
    }
  return {.stage = best.stage, .confidence = confidence, .grounds = grounds};
}

/// What the chunk got in the whole call, where it is right by itself: not the gradient of the state before it, unless it is the first.
StageOpinion within_the_call(const Experiment& with, const Problem& problem, const Run& all, std::int64_t sequence, std::int64_t head,
                             std::int64_t first, std::int64_t count) {
  const Contract& contract = with.kernel.contract;
  if (problem.shape.HV != problem.shape.H) return unclear("dq and dk are those of a group");
  if (problem.options.l2norm || problem.options.beta != BetaForm::value || problem.options.gate != GateForm::log_decay)
    return unclear("gradients are those of raw inputs");
  const Problem chunk = with_cotangents_in(chunk_alone(problem, sequence, head, first, count), contract.output);
  Choice choice = alone(problem, sequence);
  choice.pieces.front().tokens = counted(count, first);
  choice.value_heads = choice.key_heads = {head};
  Run part = chosen(all, problem, choice);
  if (first > 0) part.gradient[static_cast<std::size_t>(Input::initial_state)].clear();
  const auto truth = with.judge.gradient_truth(chunk);
  constexpr int draws = 8;
  const WrongGradients wrong(chunk, *truth, gradient_budget(contract, chunk, *truth, 1, draws), part);
  if (!wrong.usable() || wrong.wrong_ones().empty()) return unclear("the chunk is right in the whole call too");
  StageOpinion opinion = best_of(wrong);
  opinion.confidence *= 0.8;
  opinion.grounds = "right by itself; in the whole call " + opinion.grounds;
  return opinion;
}

} // namespace

StageOpinion stage_by_gradients(const Experiment& with, const Problem& problem, const Run& all, const Place& first_wrong) {
  const Contract& contract = with.kernel.contract;
  if (problem.options.rule != Rule::kda) return unclear("the general form is not taken apart");
  if (first_wrong.tensor == "dA_log" || first_wrong.tensor == "ddt_bias")
    return {.stage = Stage::gate_sum, .confidence = 0.8, .grounds = first_wrong.tensor + " alone is wrong"};
  if (first_wrong.tensor == "dinitial_state")
    return {.stage = Stage::state_carry, .confidence = 0.8, .grounds = "d initial_state alone is wrong"};
  if (first_wrong.token < 0 || first_wrong.sequence < 0) return unclear("no single token is refused by itself");
  if (with.kernel.contract.decay_per_head) return unclear("heads that share their decay are not taken apart");
  const auto members = sequences(problem);
  const std::int64_t length = members.at(static_cast<std::size_t>(first_wrong.sequence)).length;
  const std::int64_t C = contract.order == Order::recurrence ? 16 : contract.chunk, first = first_wrong.token / C * C,
                     count = std::min(C, length - first);
  const std::int64_t group = problem.shape.HV / problem.shape.H;
  const bool of_key = first_wrong.tensor == "dq" || first_wrong.tensor == "dk";
  const std::int64_t head = std::max<std::int64_t>(first_wrong.head, 0) * (of_key ? group : 1);
  std::optional<Problem> chunk;
  for (std::int64_t of_group = 0; !chunk && of_group < (of_key ? group : 1); ++of_group)
    chunk = small_and_wrong(with, problem, first_wrong.sequence, head + of_group, first_wrong.token, length, C);
  if (!chunk) {
    if (const StageOpinion opinion = within_the_call(with, problem, all, first_wrong.sequence, head, first, count); opinion.stage)
      return opinion;
    if (problem.shape.HV > 1 &&
        with.fails(with_cotangents_in(chunk_alone(problem, first_wrong.sequence, std::nullopt, first, count), contract.output))
            .value_or(false))
      return {.stage = Stage::inputs, .confidence = 0.7, .grounds = "every head alone is right, all together are not"};
    Problem whole = chosen(problem, alone(problem, first_wrong.sequence));
    if (length > C && with.fails(whole).value_or(false))
      return {.stage = Stage::state_carry, .confidence = 0.8, .grounds = "every chunk is right from exact states, the sequence is not"};
    return unclear("the sequence alone is right");
  }
  const Run run = with.run(*chunk);
  const auto truth = with.judge.gradient_truth(*chunk);
  constexpr int draws = 8;
  const WrongGradients wrong(*chunk, *truth, gradient_budget(contract, *chunk, *truth, 1, draws), run);
  if (!wrong.usable()) return unclear("what was written is not finite");
  if (wrong.wrong_ones().empty()) return unclear("the error is too near to what the contract allows");
  if (wrong.largest_relative_error() < 0x1p-7 && wrong.wrong_ones().find(',') != std::string::npos)
    if (const auto opinion = best_of(wrong); !opinion.stage)
      return {.stage = Stage::inputs, .confidence = 0.4, .grounds = wrong.wrong_ones() + " are wrong by a rounding of what is written"};
  return best_of(wrong);
}

} // namespace kdacheck
