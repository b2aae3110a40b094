// Which quantity of the exact reverse chunk must have been another for all gradients to become what a kernel wrote?
//
// The last wrong chunk (the backward pass goes from the last to the first) is run again alone, from the exact state before and
// against the exact cotangent after it, as few tokens and channels of it as still go wrong; or in its sequence, or among the other heads,
// where it goes wrong only so. For every quantity on the way the
// gradients are linear in what it is made by: one factor, a factor per token, or any numbers at all. The stage is that of the
// explanation with the fewest numbers after which nothing but the contract's noise is left in any gradient. For KDA only.

#include "seen_chunk.hpp"
#include "wrong_gradients.hpp"

#include "../transform.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdacheck {
namespace {

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

struct Size {
  std::int64_t tokens, channels, values;
};
constexpr std::int64_t all_of_them = std::numeric_limits<std::int64_t>::max();
constexpr std::array sizes{Size{12, 12, 20},
                           Size{8, 16, 16},
                           Size{16, 16, 24},
                           Size{12, 64, 20},
                           Size{8, 128, 16},
                           Size{all_of_them, 16, 24},
                           Size{all_of_them, all_of_them, all_of_them}};

/// Fewer tries where every one runs a whole sequence.
constexpr std::array sizes_in_a_call{Size{12, 12, 20}, Size{16, 16, 24}, Size{8, 32, 12}, Size{all_of_them, all_of_them, all_of_them}};

/// The call with its first channels only, cotangents in the kernel's format, if the kernel still goes wrong.
std::optional<Problem> narrow_and_wrong(const Experiment& with, Problem call, const Size& size) {
  Choice choice = everything(call);
  choice.key_channels = counted(std::min(size.channels, call.shape.K));
  choice.value_channels = counted(std::min(size.values, call.shape.V));
  call = with_cotangents_in(chosen(call, choice), with.kernel.contract.output);
  return with.fails(call).value_or(false) ? std::optional(std::move(call)) : std::nullopt;
}

/// So few tokens up to the wrong one and so few channels that every fit is quick, or else the chunk itself, as long as it still goes
/// wrong by itself.
std::optional<Problem> small_and_wrong(const Experiment& with, const Problem& problem, std::int64_t sequence, std::int64_t head,
                                       std::int64_t token, std::int64_t length, std::int64_t C) {
  const auto wrong = [&](std::int64_t first, std::int64_t count, const Size& size) -> std::optional<Problem> {
    if (first > 0 && !with.kernel.contract.initial_state) return std::nullopt;
    return narrow_and_wrong(with, chunk_alone(problem, sequence, head, first, count), size);
  };
  const std::int64_t aligned = token / C * C;
  for (const Size& size : sizes) {
    const std::int64_t most = std::min(size.tokens, C), upto = std::min(most, token + 1);
    if (auto chunk = wrong(token + 1 - upto, upto, size)) return chunk;
    const std::int64_t end = std::min(aligned + C, length), count = std::min(size.tokens, end - aligned);
    for (const std::int64_t first : {end - count, aligned})
      if (auto chunk = wrong(first, count, size)) return chunk;
  }
  return std::nullopt;
}

/// Where K V or n K are more numbers than a fit may have: fewer tokens and value channels, which are independent of each other, if these
/// still go wrong.
std::optional<Problem> with_fewer_columns(const Experiment& with, const Problem& chunk) {
  const auto [n, K, V] = std::tuple(chunk.shape.T, chunk.shape.K, chunk.shape.V);
  if (std::max(n, V) * K <= most_unknowns || K > most_unknowns) return std::nullopt;
  const std::int64_t few = std::max<std::int64_t>(1, most_unknowns / K);
  for (const std::int64_t tokens : {std::min(n, few), std::min<std::int64_t>(n, 1)})
    for (const std::int64_t first : {n - tokens, std::int64_t{0}}) {
      if (first > 0 && !with.kernel.contract.initial_state) continue;
      if (auto narrow = narrow_and_wrong(with, chunk_alone(chunk, 0, 0, first, tokens), {tokens, K, few})) return narrow;
    }
  return std::nullopt;
}

/// `narrow`: the same in fewer columns, for what takes too many numbers otherwise.
StageOpinion best_of(const WrongGradients& wrong, const WrongGradients* narrow = nullptr) {
  struct Candidate {
    Stage stage;
    std::string what;
    WrongGradients::Fit fit;
    bool as_written = false;
  };
  std::vector<Candidate> candidates;
  const auto offer = [&](Stage stage, const char* what, const WrongGradients::Fit& fit, bool as_written = false) {
    if (fit.tried && fit.explains) candidates.push_back({stage, what, fit, as_written});
  };
  const auto fitted_to = [&](const auto& site) {
    auto fit = wrong.fit(site);
    if (fit.tried || !narrow || wrong.unknowns_of(site) <= most_unknowns) return fit;
    fit = narrow->fit(site);
    fit.unknowns = wrong.unknowns_of(site); // by which explanations are compared
    return fit;
  };
  WrongGradients::Fit dU, dZ;
  for (const Site& site : sites) {
    const auto fit = fitted_to(site);
    if (site.freedom == Freedom::any && site.where == Midway::dU) dU = fit;
    if (site.freedom == Freedom::any && site.where == Midway::dZ) dZ = fit;
    constexpr std::array written{Midway::dq, Midway::dk, Midway::dv, Midway::dg, Midway::dS};
    offer(site.stage, site.what, fit, site.freedom == Freedom::any && std::ranges::find(written, site.where) != written.end());
  }
  offer(Stage::residual, "beta", wrong.fit_beta());
  for (const InputSite& site : input_sites) offer(site.stage, site.what, fitted_to(site));
  const std::string which = wrong.wrong_ones() + (wrong.wrong_ones().find(',') == std::string::npos ? " is" : " are") + " wrong";
  if (candidates.empty()) return unclear(which + "; no single quantity explains it");
  std::ranges::stable_sort(candidates, {}, [](const Candidate& c) { return c.fit.unknowns; });
  const Candidate& best = candidates.front();
  const std::string grounds = fmt::format("{}: as another {} makes them (all but {:.2f})", which, best.what, best.fit.left);
  if (dU.explains && dZ.explains && best.fit.unknowns == dU.unknowns) { // dU and dZ explain the same: which is changed evenly?
    const double of_U = wrong.relative_change(Midway::dU, dU), of_Z = wrong.relative_change(Midway::dZ, dZ);
    if (2 * of_U < of_Z) return says(Stage::output, 0.6, which + ": as another dU makes them");
    if (2 * of_Z < of_U) return says(Stage::residual, 0.6, which + ": as another dZ makes them");
    return unclear(which + ": as another dU or dZ makes them");
  }
  if (wrong.errs_in_single_channels()) // a product on the way would have spoilt whole rows
    for (const Candidate& written : candidates)
      if (written.as_written) return says(written.stage, 0.6, which + " in single channels: as another " + written.what + " makes them");
  double confidence = 0.85 * (1 - std::min(1.0, best.fit.left));
  for (const Candidate& other : candidates)
    if (other.stage != best.stage && other.fit.unknowns <= best.fit.unknowns + best.fit.unknowns / 4) {
      if (other.fit.unknowns == best.fit.unknowns) return unclear(grounds + fmt::format(", or another {}", other.what));
      confidence /= 2;
      break;
    }
  return says(best.stage, confidence, grounds);
}

constexpr int draws = 8;

WrongGradients wrong_gradients(const Experiment& with, const Problem& chunk, const Run& run) {
  const auto truth = with.judge.gradient_truth(chunk);
  return {chunk, *truth, gradient_budget(with.kernel.contract, chunk, *truth, 1, draws), run};
}

/// A chunk that is right by itself carries what the tokens around it left in its call: an error of it is far larger.
constexpr double error_in_a_call = 10 * noise;

struct SeenGradients {
  SeenChunk seen;
  WrongGradients wrong;
};

/// Of several heads of a group the one in whose own gradients most is wrong: dq and dk are those of all of them.
void keep_clearer(std::optional<SeenGradients>& best, std::optional<SeenGradients> other) {
  if (other && (!best || other->wrong.wrong_parts() > best->wrong.wrong_parts())) best = std::move(other);
}

/// Of a chunk that is right by itself: in its sequence, among the other heads, or both, the call ending a few tokens into the chunk
/// or else with the sequence, and with as few channels as still go wrong. `heads`: those of the group that may be the wrong one.
std::optional<SeenGradients> wrong_within_a_call(const Experiment& with, const Problem& problem, const ChunkPlace& place,
                                                 const std::vector<std::int64_t>& heads, std::int64_t token) {
  const std::int64_t first = place.first, count = place.count;
  const std::int64_t length = sequences(problem)[static_cast<std::size_t>(place.sequence)].length;
  const auto in_call = [&](const Problem& call, std::int64_t head, std::int64_t its_first, std::int64_t tokens,
                           const char* where) -> std::optional<SeenGradients> {
    Run run = part_of(with.run(call), call, head, its_first, tokens);
    Problem chunk = with_cotangents_in(chunk_alone(call, 0, head, its_first, tokens), with.kernel.contract.output);
    WrongGradients wrong = wrong_gradients(with, chunk, run);
    if (!wrong.usable() || wrong.largest_excess() < error_in_a_call) return std::nullopt;
    return SeenGradients{{call, head, its_first, std::move(chunk), std::move(run), where}, std::move(wrong)};
  };
  /// `one`: that head alone; nothing: all of them.
  const auto seen = [&](std::optional<std::int64_t> one, std::int64_t from, const char* where) {
    std::optional<SeenGradients> best;
    if (from > 0 && !with.kernel.contract.initial_state) return best;
    for (const Size& size : sizes_in_a_call)
      for (const bool to_the_end : {false, true}) {
        const std::int64_t tokens = to_the_end ? count : std::min(std::max(size.tokens, token - first + 1), count);
        const std::int64_t end = to_the_end ? length : first + tokens;
        const auto call = narrow_and_wrong(with, chunk_alone(problem, place.sequence, one, from, end - from), size);
        if (!call) continue;
        for (const std::int64_t head : heads)
          if (!one || *one == head) keep_clearer(best, in_call(*call, one ? 0 : head, first - from, tokens, where));
        if (best) return best;
      }
    return best;
  };
  if (first > 0)
    for (const std::int64_t head : heads)
      if (auto in_sequence = seen(head, 0, "right from exact states, wrong in its sequence")) return in_sequence;
  if (problem.shape.HV == 1) return std::nullopt;
  if (auto among_heads = seen(std::nullopt, first, "right as one head alone, wrong among the others")) return among_heads;
  return first > 0 ? seen(std::nullopt, 0, "right by itself, wrong in its sequence among the other heads") : std::nullopt;
}

/// What the chunk got in the whole call.
std::optional<SeenGradients> wrong_in_the_whole_call(const Experiment& with, const Problem& problem, const Run& all,
                                                     const ChunkPlace& place, const std::vector<std::int64_t>& heads) {
  const auto& [sequence, unused, first, count] = place;
  const Problem call = chosen(problem, alone(problem, sequence));
  const Run of_call = chosen(all, problem, alone(problem, sequence));
  std::optional<SeenGradients> best;
  for (const std::int64_t head : heads) {
    Run run = part_of(of_call, call, head, first, count);
    Problem chunk = with_cotangents_in(chunk_alone(problem, sequence, head, first, count), with.kernel.contract.output);
    WrongGradients wrong = wrong_gradients(with, chunk, run);
    if (wrong.usable() && !wrong.wrong_ones().empty())
      keep_clearer(best, SeenGradients{{call, head, first, std::move(chunk), std::move(run), "right by itself, wrong in the whole call"},
                                       std::move(wrong)});
  }
  return best;
}

/// The same numbers handed over as log decay, strength and direction where the kernel takes them and is still wrong: what it then writes
/// are gradients of these, which the reverse chunk gives.
Problem plainly(const Experiment& with, const Problem& problem) {
  Problem plain = problem;
  const auto prefer = [&](Problem other) {
    if (with.fails(other).value_or(false)) plain = std::move(other);
  };
  if (plain.options.gate != GateForm::absent && plain.options.gate != GateForm::log_decay) prefer(with_plain_gate(plain));
  if (plain.options.beta != BetaForm::value && !plain.beta.empty()) prefer(with_plain_beta(plain));
  if (plain.options.l2norm) prefer(with_plain_directions(plain));
  return plain;
}

bool is_plain(const Problem& problem) {
  return !problem.options.l2norm && problem.options.beta == BetaForm::value &&
         (problem.options.gate == GateForm::log_decay || problem.options.gate == GateForm::absent);
}

/// Single elements of one gradient that are not finite were not finite when they were written.
StageOpinion of_not_finite(const Problem& chunk, const Run& run) {
  constexpr std::array written{std::pair(Input::q, Stage::output),      std::pair(Input::k, Stage::inputs),
                               std::pair(Input::v, Stage::residual),    std::pair(Input::g, Stage::gate_sum),
                               std::pair(Input::beta, Stage::residual), std::pair(Input::initial_state, Stage::state_carry)};
  std::optional<std::pair<Input, Stage>> only;
  for (const auto& [input, stage] : written) {
    const std::vector<float>& gradient = run.gradient[static_cast<std::size_t>(input)];
    const auto bad = static_cast<std::size_t>(std::ranges::count_if(gradient, [](float x) { return !std::isfinite(x); }));
    if (bad == 0) continue;
    const auto row = static_cast<std::size_t>(std::max<std::int64_t>(2, row_shape(input, chunk.shape).channels));
    if (only || 2 * bad > row) return unclear("what was written is not finite");
    only = std::pair(input, stage);
  }
  if (!only) return unclear("what was written is not finite");
  return says(only->second, 0.5, fmt::format("only d{} is not finite, in single elements", name(only->first)));
}

} // namespace

StageOpinion stage_by_gradients(const Experiment& with, const Problem& given, const Run& all, const Place& given_place,
                                std::optional<SeenChunk>& seen) {
  const Contract& contract = with.kernel.contract;
  if (given.options.rule != Rule::kda) return unclear("the general form is not taken apart");
  if (given_place.tensor == "dA_log" || given_place.tensor == "ddt_bias")
    return says(Stage::gate_sum, 0.8, given_place.tensor + " alone is wrong");
  if (given_place.tensor == "dinitial_state") return says(Stage::state_carry, 0.8, "d initial_state alone is wrong");
  if (given_place.token < 0 || given_place.sequence < 0) return unclear("no single token is refused by itself");
  if (with.kernel.contract.decay_per_head) return unclear("heads that share their decay are not taken apart");

  Problem problem = plainly(with, given);
  Run written = all;
  Place first_wrong = given_place;
  if (!is_plain(given)) {
    written = with.run(problem);
    if (const auto place = first_wrong_gradient(contract, problem, written, with.judge); place && place->token >= 0)
      first_wrong = *place;
    else
      problem = given, written = all;
  }
  const std::int64_t group = problem.shape.HV / problem.shape.H;
  const bool of_key = first_wrong.tensor == "dq" || first_wrong.tensor == "dk";
  Place of_head = first_wrong;
  of_head.head = std::max<std::int64_t>(first_wrong.head, 0) * (of_key ? group : 1);
  const ChunkPlace place = *chunk_of(contract, problem, of_head);
  const std::int64_t length = sequences(problem).at(static_cast<std::size_t>(place.sequence)).length;
  const std::int64_t C = contract.order == Order::recurrence ? 16 : contract.chunk;
  const std::vector<std::int64_t> heads = counted(of_key ? group : 1, place.head);
  std::optional<Problem> chunk;
  for (const std::int64_t head : heads)
    if (!chunk) chunk = small_and_wrong(with, problem, place.sequence, head, first_wrong.token, length, C);
  if (!chunk) {
    auto within = wrong_within_a_call(with, problem, place, heads, first_wrong.token);
    if (!within && is_plain(problem)) within = wrong_in_the_whole_call(with, problem, written, place, heads);
    if (within) {
      StageOpinion opinion = best_of(within->wrong);
      opinion.confidence *= 0.8;
      if (const std::string which = within->wrong.wrong_ones(); !opinion.stage && which == "dq, dk" && group > 1)
        opinion = says(Stage::inputs, 0.7, which + " alone, which a group adds up");
      if (!opinion.stage && length > C && with.fails(chosen(problem, alone(problem, first_wrong.sequence))).value_or(false))
        opinion.stage = Stage::state_carry, opinion.confidence = 0.5;
      opinion.grounds = within->seen.where + "; " + opinion.grounds;
      seen = std::move(within->seen);
      return opinion;
    }
    if (problem.shape.HV > 1 &&
        with.fails(with_cotangents_in(chunk_alone(problem, first_wrong.sequence, std::nullopt, place.first, place.count), contract.output))
            .value_or(false))
      return says(Stage::inputs, 0.7, "every head alone is right, all together are not");
    if (length > C && with.fails(chosen(problem, alone(problem, first_wrong.sequence))).value_or(false))
      return says(Stage::state_carry, 0.8, "every chunk is right from exact states, the sequence is not");
    return unclear("the sequence alone is right");
  }
  const WrongGradients wrong = wrong_gradients(with, *chunk, with.run(*chunk));
  if (!wrong.usable()) return of_not_finite(*chunk, with.run(*chunk));
  if (wrong.wrong_ones().empty()) return unclear("the error is too near to what the contract allows");
  std::optional<WrongGradients> narrow;
  if (const auto fewer = with_fewer_columns(with, *chunk)) {
    narrow.emplace(wrong_gradients(with, *fewer, with.run(*fewer)));
    if (!narrow->usable() || narrow->wrong_ones().empty()) narrow.reset();
  }
  StageOpinion opinion = best_of(wrong, narrow ? &*narrow : nullptr);
  if (!opinion.stage && wrong.largest_relative_error() < 0x1p-7 && wrong.wrong_ones().find(',') != std::string::npos)
    return says(Stage::inputs, 0.4, wrong.wrong_ones() + " are wrong by a rounding of what is written");
  return opinion;
}

} // namespace kdacheck
