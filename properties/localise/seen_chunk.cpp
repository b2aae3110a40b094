#include "seen_chunk.hpp"

#include "../transform.hpp"

#include <algorithm>
#include <utility>

namespace kdacheck {
namespace {

/// What the other value heads of its group add to a head's dq and dk, by themselves.
void take_away_others(Run& part, const Problem& call, std::int64_t head, std::int64_t first, std::int64_t count) {
  const std::int64_t group = call.shape.HV / call.shape.H, leader = head / group * group;
  for (std::int64_t other = leader; other < leader + group; ++other) {
    if (other == head) continue;
    const Truth truth = gradient_truth(chunk_alone(call, 0, other, first, count), Arithmetic::double_double);
    for (Input input : {Input::q, Input::k}) {
      std::vector<float>& written = part.gradient[static_cast<std::size_t>(input)];
      for (std::size_t i = 0; i < written.size(); ++i)
        written[i] = static_cast<float>(static_cast<double>(written[i]) - truth[input].value[i]);
    }
  }
}

} // namespace

Run part_of(const Run& all, const Problem& call, std::int64_t head, std::int64_t first, std::int64_t count) {
  Choice choice = everything(call);
  choice.pieces.front().tokens = counted(count, first);
  choice.value_heads = {head}, choice.key_heads = {head / (call.shape.HV / call.shape.H)};
  Run part = chosen(all, call, choice);
  if (first > 0) part.gradient[static_cast<std::size_t>(Input::initial_state)].clear();
  if (!part.gradient[static_cast<std::size_t>(Input::q)].empty()) take_away_others(part, call, head, first, count);
  return part;
}

std::optional<SeenChunk> seen_in(const Experiment& with, Problem call, std::int64_t head, std::int64_t first, std::int64_t count,
                                 std::string where) {
  if (!with.fails(call).value_or(false)) return std::nullopt;
  Run run = part_of(with.run(call), call, head, first, count);
  Problem chunk = where.empty() ? call : chunk_alone(call, 0, head, first, count);
  return SeenChunk{std::move(call), head, first, std::move(chunk), std::move(run), std::move(where)};
}

std::optional<ChunkPlace> chunk_of(const Contract& contract, const Problem& problem, const Place& place) {
  const std::int64_t sequence = std::max<std::int64_t>(place.sequence, 0), head = std::max<std::int64_t>(place.head, 0);
  const std::int64_t length = sequences(problem).at(static_cast<std::size_t>(sequence)).length;
  if (length == 0) return std::nullopt;
  const std::int64_t C = contract.order == Order::recurrence ? 16 : contract.chunk;
  const std::int64_t token = place.tensor == "final_state" || place.token < 0 ? length - 1 : place.token, first = token / C * C;
  return ChunkPlace{sequence, head, first, std::min(C, length - first)};
}

std::optional<SeenChunk> wrong_chunk(const Experiment& with, const Problem& problem, const ChunkPlace& place) {
  const auto& [sequence, head, first, count] = place;
  const auto seen = [&](std::optional<std::int64_t> heads, std::int64_t from, const char* where) {
    return seen_in(with, chunk_alone(problem, sequence, heads, from, first + count - from), heads ? 0 : head, first - from, count, where);
  };
  if (auto alone = seen(head, first, "")) return alone;
  if (first > 0)
    if (auto in_sequence = seen(head, 0, "right from the exact state, wrong in its sequence")) return in_sequence;
  if (problem.shape.HV == 1) return std::nullopt;
  if (auto among_heads = seen(std::nullopt, first, "right as one head alone, wrong among the others")) return among_heads;
  return first > 0 ? seen(std::nullopt, 0, "right by itself, wrong in its sequence among the other heads") : std::nullopt;
}

} // namespace kdacheck
