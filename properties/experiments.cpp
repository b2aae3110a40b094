#include "experiments.hpp"

#include "../reference/effective.hpp"
#include "transform.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

namespace kdacheck {
namespace {

/// Where a misread input enters.
Stage stage_of(Input input) {
  switch (input) {
  case Input::g:
  case Input::A_log:
  case Input::dt_bias: return Stage::gate_sum;
  case Input::beta:
  case Input::v: return Stage::residual;
  case Input::initial_state: return Stage::state_carry;
  default: return Stage::inputs;
  }
}

/// Heads of a tensor's row, or of a parameter or state.
std::int64_t heads_of(Input input, const Shape& shape) { return input == Input::q || input == Input::k ? shape.H : shape.HV; }

/// Every head's numbers of an input replaced by one head's.
void repeat_head(Problem& problem, Input input, std::int64_t value_head) {
  std::vector<float>& tensor = problem[input];
  const auto extents = shape_of(input, problem.shape, sequence_count(problem));
  const std::int64_t heads = heads_of(input, problem.shape);
  const std::int64_t from = heads == problem.shape.HV ? value_head : value_head / (problem.shape.HV / problem.shape.H);
  const bool parameter = input == Input::A_log || input == Input::dt_bias, state = input == Input::initial_state;
  const std::int64_t outer = parameter ? 1 : state ? extents[0] : extents[0] * extents[1];
  const auto inner = static_cast<std::int64_t>(tensor.size()) / (outer * heads);
  for (std::int64_t i = 0; i < outer; ++i)
    for (std::int64_t h = 0; h < heads; ++h)
      if (h != from) std::copy_n(tensor.begin() + (i * heads + from) * inner, inner, tensor.begin() + (i * heads + h) * inner);
}

/// Every sequence's state replaced by one sequence's.
void repeat_state(std::vector<float>& state, std::int64_t members, std::int64_t from) {
  const auto size = static_cast<std::int64_t>(state.size()) / members;
  for (std::int64_t to = 0; to < members; ++to)
    if (to != from) std::copy_n(state.begin() + from * size, size, state.begin() + to * size);
}

/// Nothing is written into the states of the other sequences, or into their cotangents: these stay zero.
Problem others_without_state(Problem problem, std::int64_t sequence, Direction direction) {
  const auto clear = [&](std::vector<float>& tensor, std::int64_t first, std::int64_t count, std::int64_t of) {
    if (tensor.empty()) return;
    const auto size = static_cast<std::int64_t>(tensor.size()) / of;
    std::fill_n(tensor.begin() + first * size, count * size, 0.0f);
  };
  const bool backward = direction == Direction::backward;
  const std::int64_t rows = problem.shape.B * problem.shape.T, members = sequence_count(problem);
  for (const Sequence& other : sequences(problem)) {
    if (other.index == sequence) continue;
    clear(backward ? problem.d_o : problem.v, other.first, other.length, rows);
    clear(backward ? problem.d_final_state : problem.initial_state, other.index, 1, members);
  }
  return problem;
}

/// Every sequence's numbers of an input replaced by one sequence's, over and over where that is shorter.
void repeat_sequence(Problem& problem, Input input, std::int64_t sequence) {
  std::vector<float>& tensor = problem[input];
  const auto members = sequences(problem);
  const Sequence& from = members[static_cast<std::size_t>(sequence)];
  if (input == Input::initial_state) return repeat_state(tensor, static_cast<std::int64_t>(members.size()), sequence);
  const std::int64_t row = row_shape(input, problem.shape).size();
  if (row == 0 || from.length == 0) return;
  for (const Sequence& to : members)
    for (std::int64_t t = 0; to.index != from.index && t < to.length; ++t)
      std::copy_n(tensor.begin() + (from.first + t % from.length) * row, row, tensor.begin() + (to.first + t) * row);
}

/// All but the gradients of the gate is right.
bool only_gates_are_wrong(const Experiment& with, const Problem& problem, Run run) {
  if (with.direction != Direction::backward) return false;
  const auto truth = with.judge.gradient_truth(problem);
  for (Input input : {Input::g, Input::A_log, Input::dt_bias}) {
    std::vector<float>& written = run.gradient[static_cast<std::size_t>(input)];
    if (written.size() > (*truth)[input].value.size()) return false;
    for (std::size_t i = 0; i < written.size(); ++i)
      written[i] = round_to(with.kernel.contract.gradient, static_cast<float>((*truth)[input].value[i]));
  }
  return !is_failure(with.judged(problem, run).verdict);
}

/// All but o, or all but dq, is right.
bool only_queries_are_wrong(const Experiment& with, const Problem& problem, Run run) {
  const bool backward = with.direction == Direction::backward;
  const auto truth = backward ? with.judge.gradient_truth(problem) : with.judge.forward_truth(problem);
  std::vector<float>& of_queries = backward ? run.gradient[static_cast<std::size_t>(Input::q)] : run.o;
  const Enclosed& exact = backward ? (*truth)[Input::q] : truth->o;
  const Format stored = backward ? with.kernel.contract.gradient : with.kernel.contract.output;
  if (of_queries.size() != exact.value.size()) return false;
  for (std::size_t i = 0; i < of_queries.size(); ++i) of_queries[i] = round_to(stored, static_cast<float>(exact.value[i]));
  return !is_failure(with.judged(problem, run).verdict);
}

Problem without_decay(Problem problem) {
  problem.options.gate = GateForm::log_decay;
  problem.A_log.clear(), problem.dt_bias.clear();
  std::ranges::fill(problem.g, 0.0f);
  return problem;
}

} // namespace

Run without_last_rounding(const Contract& contract, const Truth& truth, Run run) {
  if (run.o.size() != truth.o.value.size()) return run;
  for (std::size_t i = 0; i < run.o.size(); ++i) {
    const double exact = truth.o.value[i];
    if (std::abs(static_cast<double>(run.o[i]) - exact) <= half_ulp(contract.output, exact) * (1 + 0x1p-20) + truth.o.radius[i])
      run.o[i] = static_cast<float>(exact);
  }
  return run;
}

Run Experiment::run(const Problem& problem, const RunOptions& options) const {
  if (direction == Direction::backward) return run_backward(kernel, problem, options);
  Run run = run_forward(kernel, problem, options);
  return sharper > 1 && !run.refused ? without_last_rounding(kernel.contract, *judge.forward_truth(problem), std::move(run)) : run;
}

double Experiment::excess(const Problem& problem, const Run& run) const {
  const auto truth = judge.forward_truth(problem);
  const auto budget = judge.forward_budget(kernel.contract, problem);
  const auto V = static_cast<std::size_t>(problem.shape.V);
  double worst = 0;
  const auto weigh = [&](const std::vector<float>& written, const Enclosed& exact, const std::vector<double>& spread, Format stored) {
    if (written.size() != exact.value.size()) return;
    for (std::size_t row = 0; row < spread.size(); ++row) {
      double error = 0, least = 0; // the spread leaves out the last rounding, and is nothing where the kernel has nothing to round
      for (std::size_t i = row * V; i < (row + 1) * V; ++i) {
        error += std::pow(static_cast<double>(written[i]) - exact.value[i], 2);
        least += std::pow(half_ulp(stored, exact.value[i]) + exact.radius[i], 2);
      }
      const double unit = std::max(spread[row], std::sqrt(least / static_cast<double>(V)));
      if (std::isnan(error)) worst = std::numeric_limits<double>::infinity();
      if (std::isfinite(unit)) worst = std::max(worst, std::sqrt(error / static_cast<double>(V)) / unit);
    }
  };
  weigh(run.o, truth->o, budget->output.token, kernel.contract.output);
  weigh(run.final_state, truth->final_state, budget->output.state_row, Format::fp32);
  return sharper * worst;
}

Finding Experiment::judged(const Problem& problem, const Run& of) const {
  return direction == Direction::backward ? judge.backward(kernel.contract, problem, of) : judge.forward(kernel.contract, problem, of);
}

std::optional<bool> Experiment::fails(const Problem& problem, const RunOptions& options) const {
  if (malformed(problem) || outside_domain(kernel.contract, problem)) return std::nullopt;
  const Run again = run(problem, options);
  if (again.refused) return std::nullopt;
  if (sharper > 1 && direction == Direction::forward && excess(problem, again) > noise_in_spreads) return true;
  return is_failure(judged(problem, again).verdict);
}

Problem chunk_alone(const Problem& problem, std::int64_t sequence, std::optional<std::int64_t> head, std::int64_t first,
                    std::int64_t count) {
  const std::int64_t length = sequences(problem)[static_cast<std::size_t>(sequence)].length;
  Choice choice = alone(problem, sequence);
  if (head) {
    choice.value_heads = {*head};
    choice.key_heads = {*head / (problem.shape.HV / problem.shape.H)};
  }
  const auto tokens = [&](std::int64_t from, std::int64_t n) {
    Choice part = choice;
    part.pieces.front().tokens = counted(n, from);
    return chosen(problem, part);
  };
  Problem chunk = tokens(first, count);
  const auto state_after = [](Problem part) {
    part.d_o.clear(), part.d_final_state.clear();
    const Truth truth = forward_truth(part, Arithmetic::double_double);
    return std::vector<float>(truth.final_state.value.begin(), truth.final_state.value.end());
  };
  if (first > 0) chunk.initial_state = state_after(tokens(0, first));
  if (first + count < length && !(problem.d_o.empty() && problem.d_final_state.empty())) {
    Problem suffix = tokens(first + count, length - first - count);
    suffix.initial_state = state_after(tokens(0, first + count));
    const Truth truth = gradient_truth(suffix, Arithmetic::double_double);
    chunk.d_final_state.assign(truth[Input::initial_state].value.begin(), truth[Input::initial_state].value.end());
  }
  return chunk;
}

Problem with_plain_gate(const Problem& problem) {
  Problem plain = problem;
  const Shape& s = problem.shape;
  for (std::int64_t row = 0; row < s.B * s.T; ++row)
    for (std::int64_t head = 0; head < s.HV; ++head) {
      const auto token = effective_token<double>(problem, Exactly<double>{problem}, row, head);
      for (std::int64_t c = 0; c < s.K; ++c)
        plain.g[static_cast<std::size_t>((row * s.HV + head) * s.K + c)] =
            round_to(problem.formats.gate, static_cast<float>(token.log_decay[static_cast<std::size_t>(c)]));
    }
  plain.options.gate = GateForm::log_decay;
  plain.A_log.clear(), plain.dt_bias.clear();
  return plain;
}

Problem with_plain_beta(const Problem& problem) {
  Problem plain = problem;
  for (float& x : plain.beta)
    x = round_to(problem.formats.beta, static_cast<float>(beta_of<double>(problem.options.beta, static_cast<double>(x))));
  plain.options.beta = BetaForm::value;
  return plain;
}

Problem with_plain_directions(const Problem& problem) {
  Problem plain = problem;
  const auto K = static_cast<std::size_t>(problem.shape.K);
  for (Input input : {Input::q, Input::k}) {
    std::vector<float>& tensor = plain[input];
    for (std::size_t at = 0; at < tensor.size(); at += K) {
      const std::vector<double> raw(tensor.begin() + static_cast<std::ptrdiff_t>(at), tensor.begin() + static_cast<std::ptrdiff_t>(at + K));
      const std::vector<double> unit = normalised<double>(raw);
      for (std::size_t c = 0; c < K; ++c) tensor[at + c] = round_to(problem.formats.qkv, static_cast<float>(unit[c]));
    }
  }
  plain.options.l2norm = false;
  return plain;
}

StageOpinion stage_by_form(const Experiment& with, const Problem& problem, const Run& run) {
  Problem plain = problem;
  const auto right_with = [&](Problem other) { // and stays in that form where the kernel takes it
    const auto fails = with.fails(other);
    if (fails) plain = std::move(other);
    return fails == false;
  };
  if (const GateForm form = problem.options.gate; form != GateForm::absent && form != GateForm::log_decay)
    if (right_with(with_plain_gate(plain))) return says(Stage::gate_sum, 0.9, "right where the log decay itself is handed over");
  if (problem.options.beta != BetaForm::value && !problem.beta.empty())
    if (right_with(with_plain_beta(plain))) return says(Stage::residual, 0.9, "right where beta itself is handed over");
  if (problem.options.l2norm && right_with(with_plain_directions(plain)))
    return only_queries_are_wrong(with, problem, run) ? says(Stage::output, 0.9, "right where q comes normalised, and k is right")
                                                      : says(Stage::inputs, 0.9, "right where q and k come normalised");
  return unclear();
}

StageOpinion stage_by_neighbours(const Experiment& with, const Problem& problem, const Place& at) {
  const std::int64_t head = std::max<std::int64_t>(at.head, 0), sequence = std::max<std::int64_t>(at.sequence, 0);
  const auto right_if = [&](std::initializer_list<Input> inputs, auto&& repeat) {
    Problem same = problem;
    for (Input input : inputs) {
      if (same[input].empty()) return false;
      repeat(same, input);
    }
    return same[*inputs.begin()] != problem[*inputs.begin()] && with.fails(same) == false;
  };
  const auto misread = [&](auto&& repeat, const char* where) -> StageOpinion {
    for (Input input : {Input::g, Input::A_log, Input::dt_bias, Input::beta, Input::v, Input::k, Input::initial_state})
      if (right_if({input}, repeat))
        return says(stage_of(input), 0.85, fmt::format("right where {} is the same in every {}", name(input), where));
    if (right_if({Input::q, Input::k}, repeat))
      return says(Stage::inputs, 0.85, fmt::format("right where q and k are the same in every {}", where));
    return unclear();
  };
  const auto heads = [&](Problem& same, Input input) { repeat_head(same, input, head); };
  const auto members = [&](Problem& same, Input input) { repeat_sequence(same, input, sequence); };
  if (problem.shape.HV > 1) {
    Choice one = everything(problem);
    one.value_heads = {head}, one.key_heads = {head / (problem.shape.HV / problem.shape.H)};
    if (with.fails(chosen(problem, one)) == false)
      if (StageOpinion opinion = misread(heads, "head"); opinion.stage) return opinion;
  }
  if (sequence_count(problem) > 1 && with.fails(chosen(problem, alone(problem, sequence))) == false) {
    StageOpinion opinion = misread(members, "sequence");
    if (opinion.stage) return opinion;
    if (with.direction == Direction::backward && !problem.d_final_state.empty()) {
      Problem same = problem;
      repeat_state(same.d_final_state, sequence_count(problem), sequence);
      if (with.fails(same) == false)
        return says(Stage::state_carry, 0.85, "right where the cotangent of the final state is the same in every sequence");
    }
    if (with.fails(others_without_state(problem, sequence, with.direction)) == false)
      return says(Stage::state_carry, 0.8, "right where the states of the other sequences are zero");
    if (problem.options.gate != GateForm::absent && with.fails(without_decay(problem)) == false)
      return says(Stage::gate_sum, 0.8, "one sequence alone is right, and so are all of them without decay");
  }
  return unclear();
}

StageOpinion stage_by_decay(const Experiment& with, const Problem& problem, const Run& run, const Place& at) {
  if (is_finite(run)) return unclear();
  if (problem.options.gate == GateForm::absent || with.fails(without_decay(problem)) != false) {
    if (problem.options.beta == BetaForm::value && with.fails(scaled(problem, {Input::beta}, 0x1p-6f)) == false)
      return says(Stage::inverse, 0.6, "not finite, and right where beta is a 64th");
    return unclear();
  }
  if (at.token < 0) return unclear();
  const std::int64_t sequence = std::max<std::int64_t>(at.sequence, 0), chunk = with.kernel.contract.chunk;
  // A chunk without rows past a tail, and one of a single token without pairs.
  const std::int64_t length = sequences(problem)[static_cast<std::size_t>(sequence)].length;
  if (length % chunk != 0 && at.token >= length / chunk * chunk && at.token >= chunk - 1 && chunk > 1 &&
      with.fails(chunk_alone(problem, sequence, std::nullopt, at.token - chunk + 1, chunk)) == false)
    return says(Stage::scores, 0.6, "not finite with decay in a tail, right in a full chunk");
  const auto one = with.fails(chunk_alone(problem, sequence, std::nullopt, at.token, 1));
  if (!one) return unclear();
  return *one ? says(Stage::gate_sum, 0.8, "not finite with decay, right without, and so is one token alone")
              : says(Stage::scores, 0.8, "not finite with decay, right without, and one token alone is right with it");
}

StageOpinion stage_by_experiments(const Experiment& with, const Problem& problem, const Run& run, const Place& at) {
  if (problem.options.rule != Rule::kda) return unclear("experiments are for KDA");
  StageOpinion opinion = stage_by_repetition(with, problem, run);
  if (!opinion.stage) opinion = stage_by_form(with, problem, run);
  if (!opinion.stage && only_gates_are_wrong(with, problem, run))
    opinion = says(Stage::gate_sum, 0.8, "only gradients of the gate are wrong");
  if (!opinion.stage) opinion = stage_by_skipped_tokens(with, problem, run, at);
  if (!opinion.stage) opinion = stage_by_size(with, problem, run);
  if (!opinion.stage) opinion = stage_by_neighbours(with, problem, at);
  if (!opinion.stage) opinion = stage_by_decay(with, problem, run, at);
  if (!opinion.stage) opinion.grounds = "no changed call is right";
  return opinion;
}

} // namespace kdacheck
