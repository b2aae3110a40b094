#include "transform.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <stdexcept>

namespace kdacheck {
namespace {

using Indices = std::vector<std::int64_t>;

// Elements of a dense tensor with the given extents, index lists per dimension.
std::vector<float> gathered(std::span<const float> from, const std::array<std::int64_t, 4>& extents,
                            const std::array<const Indices*, 4>& index) {
  if (from.empty()) return {};
  std::vector<float> to;
  to.reserve(index[0]->size() * index[1]->size() * index[2]->size() * index[3]->size());
  for (const std::int64_t i : *index[0])
    for (const std::int64_t j : *index[1])
      for (const std::int64_t l : *index[2])
        for (const std::int64_t m : *index[3])
          to.push_back(from[static_cast<std::size_t>(((i * extents[1] + j) * extents[2] + l) * extents[3] + m)]);
  return to;
}

// A choice with its pieces spelled out as rows and state indices.
struct Spelled {
  const Shape& shape;
  const Choice& choice;
  Indices rows, states;
  const Indices single{0};

  Spelled(const Problem& problem, const Choice& which) : shape(problem.shape), choice(which) {
    const auto members = sequences(problem);
    for (const Piece& piece : choice.pieces) {
      const Sequence& sequence = members[static_cast<std::size_t>(piece.sequence)];
      states.push_back(piece.sequence);
      for (const std::int64_t t : piece.tokens) {
        if (t < 0 || t >= sequence.length) throw std::out_of_range("a piece names a token that its sequence does not have");
        rows.push_back(sequence.first + t);
      }
    }
  }

  std::vector<float> tokens(std::span<const float> from, std::int64_t heads, const Indices& head, std::int64_t channels,
                            const Indices& channel) const {
    return gathered(from, {shape.B * shape.T, heads, channels, 1}, {&rows, &head, &channel, &single});
  }
  std::vector<float> of(Input input, std::span<const float> from) const {
    const auto& [pieces, key_heads, value_heads, key_channels, value_channels, packed] = choice;
    switch (input) {
    case Input::q:
    case Input::k: return tokens(from, shape.H, key_heads, shape.K, key_channels);
    case Input::v: return tokens(from, shape.HV, value_heads, shape.V, value_channels);
    case Input::beta: return tokens(from, shape.HV, value_heads, 1, single);
    case Input::A_log: return gathered(from, {shape.HV, 1, 1, 1}, {&value_heads, &single, &single, &single});
    case Input::dt_bias: return gathered(from, {shape.HV, shape.K, 1, 1}, {&value_heads, &key_channels, &single, &single});
    case Input::initial_state: return state(from);
    default: return tokens(from, shape.HV, value_heads, shape.K, key_channels);
    }
  }
  std::vector<float> state(std::span<const float> from) const {
    const auto N = static_cast<std::int64_t>(states.size());
    return gathered(from, {N, shape.HV, shape.K, shape.V}, {&states, &choice.value_heads, &choice.key_channels, &choice.value_channels});
  }
  std::vector<float> output(std::span<const float> from) const {
    return tokens(from, shape.HV, choice.value_heads, shape.V, choice.value_channels);
  }
};

std::int64_t length(const Piece& piece) { return static_cast<std::int64_t>(piece.tokens.size()); }

} // namespace

std::vector<std::int64_t> counted(std::int64_t count, std::int64_t first) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), first);
  return indices;
}

Choice everything(const Problem& problem) {
  const Shape& s = problem.shape;
  Choice choice{{}, counted(s.H), counted(s.HV), counted(s.K), counted(s.V), !problem.cu_seqlens.empty()};
  for (const Sequence& sequence : sequences(problem)) choice.pieces.push_back({sequence.index, counted(sequence.length)});
  return choice;
}

Problem chosen(const Problem& old, const Choice& choice) {
  const Spelled spelled(old, choice);
  Problem problem;
  problem.options = old.options;
  problem.formats = old.formats;
  const auto rows = static_cast<std::int64_t>(spelled.rows.size());
  const auto pieces = static_cast<std::int64_t>(choice.pieces.size());
  problem.shape = {choice.packed ? 1 : pieces,
                   choice.packed ? rows : rows / pieces,
                   static_cast<std::int64_t>(choice.key_heads.size()),
                   static_cast<std::int64_t>(choice.value_heads.size()),
                   static_cast<std::int64_t>(choice.key_channels.size()),
                   static_cast<std::int64_t>(choice.value_channels.size())};
  if (choice.packed) {
    problem.cu_seqlens = {0};
    for (const Piece& piece : choice.pieces) problem.cu_seqlens.push_back(problem.cu_seqlens.back() + length(piece));
  } else if (!std::ranges::all_of(choice.pieces, [&](const Piece& piece) { return length(piece) == problem.shape.T; })) {
    throw std::invalid_argument("pieces of different lengths have to be packed");
  }
  for (Input input : all_inputs) problem[input] = spelled.of(input, old[input]);
  problem.d_o = spelled.output(old.d_o);
  problem.d_final_state = spelled.state(old.d_final_state);
  return problem;
}

Run chosen(const Run& old, const Problem& problem, const Choice& choice) {
  const Spelled spelled(problem, choice);
  Run run;
  run.refused = old.refused;
  run.trespasses = old.trespasses;
  run.o = spelled.output(old.o);
  run.final_state = spelled.state(old.final_state);
  for (Input input : all_inputs) {
    const auto i = static_cast<std::size_t>(input);
    run.gradient[i] = spelled.of(input, old.gradient[i]);
  }
  return run;
}

Choice alone(const Problem& problem, std::int64_t sequence) {
  Choice choice = everything(problem);
  choice.pieces = {choice.pieces[static_cast<std::size_t>(sequence)]};
  choice.packed = false;
  return choice;
}

Choice prefix(const Problem& problem, std::int64_t count) {
  Choice choice = everything(problem);
  for (Piece& piece : choice.pieces)
    if (length(piece) > count) piece.tokens.resize(static_cast<std::size_t>(count));
  return choice;
}

Choice window(const Problem& problem, std::int64_t first, std::int64_t count) {
  Choice choice = everything(problem);
  for (Piece& piece : choice.pieces) piece.tokens = counted(count, first);
  return choice;
}

namespace {

// [B,T1,...] and [B,T2,...] to [B,T1+T2,...].
std::vector<float> joined(std::span<const float> first, std::span<const float> second, std::int64_t B) {
  std::vector<float> both;
  const std::size_t one = first.size() / static_cast<std::size_t>(B), two = second.size() / static_cast<std::size_t>(B);
  for (std::size_t b = 0; b < static_cast<std::size_t>(B); ++b)
    for (const auto part : {first.subspan(b * one, one), second.subspan(b * two, two)}) both.insert(both.end(), part.begin(), part.end());
  return both;
}

} // namespace

Run joined_in_time(const Problem& first, const Run& run_first, const Problem& second, const Run& run_second) {
  const std::int64_t B = first.shape.B;
  Run run;
  run.o = joined(run_first.o, run_second.o, B);
  run.final_state = run_second.final_state;
  for (Input input : all_inputs) {
    const auto i = static_cast<std::size_t>(input);
    if (row_shape(input, second.shape).size()) run.gradient[i] = joined(run_first.gradient[i], run_second.gradient[i], B);
  }
  run.gradient[static_cast<std::size_t>(Input::initial_state)] = run_first.gradient[static_cast<std::size_t>(Input::initial_state)];
  return run;
}

Problem spliced(const Problem& early, const Problem& late, std::int64_t from) {
  Problem problem = early;
  for (const Sequence& sequence : sequences(early))
    for (Input input : all_inputs) {
      const std::int64_t row = row_shape(input, early.shape).size(), begin = sequence.first + std::min(from, sequence.length);
      if (early[input].empty() || row == 0) continue;
      std::copy(late[input].begin() + begin * row, late[input].begin() + (sequence.first + sequence.length) * row,
                problem[input].begin() + begin * row);
    }
  return problem;
}

RowShape row_shape(Input input, const Shape& shape) {
  switch (input) {
  case Input::q:
  case Input::k: return {shape.H, shape.K};
  case Input::v: return {shape.HV, shape.V};
  case Input::g:
  case Input::a:
  case Input::b: return {shape.HV, shape.K};
  case Input::beta: return {shape.HV, 1};
  default: return {0, 0};
  }
}

Problem scaled(Problem problem, std::initializer_list<Input> inputs, float factor) {
  for (Input input : inputs)
    for (float& value : problem[input]) value *= factor;
  return problem;
}

Problem with_cotangents_in(Problem problem, Format output) {
  for (float& value : problem.d_o) value = round_to(output, value);
  return problem;
}

} // namespace kdacheck
