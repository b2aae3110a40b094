#include "oracle_in_pieces.hpp"

#include "token_rows.hpp"

namespace kdacheck {
namespace {

using namespace modules;
using Exact = std::vector<std::vector<double>>;

/// Numbers under the names and shapes of `like`, rounded to fp32; no tensors for no numbers.
NamedTensors rounded(const Exact& numbers, NamedTensors like) {
  if (numbers.empty()) return {};
  for (std::size_t i = 0; i < like.size(); ++i) like[i].values.assign(numbers[i].begin(), numbers[i].end());
  return like;
}

void append(Exact& to, const Exact& from) {
  to.resize(std::max(to.size(), from.size()));
  for (std::size_t i = 0; i < from.size(); ++i) to[i].insert(to[i].end(), from[i].begin(), from[i].end());
}

void add(Exact& to, const Exact& from) {
  if (to.empty())
    to = from;
  else
    for (std::size_t i = 0; i < from.size(); ++i)
      for (std::size_t j = 0; j < from[i].size(); ++j) to[i][j] += from[i][j];
}

} // namespace

ExactTensors evaluated_in_pieces(const ModuleCase& c, const ModuleCotangents* d, const ModuleArithmetic& arithmetic, const Cuts& cuts,
                                 const NamedTensors& states) {
  ExactTensors whole;
  std::uint64_t piece = 0; // pieces err independently of each other
  const auto evaluate = [&](const ModuleCall& call, const ModuleCotangents* loss) {
    ModuleArithmetic own = arithmetic;
    own.seed = arithmetic.seed * 4099 + ++piece;
    return c.oracle.evaluate(call, loss, own);
  };
  for (std::int64_t n = 0; n < c.call.sequences(); ++n) {
    const std::int64_t start = c.call.cu_seqlens[static_cast<std::size_t>(n)];
    const std::int64_t length = c.call.cu_seqlens[static_cast<std::size_t>(n + 1)] - start;
    const NamedTensors like = state_of(states, n);
    std::vector<ModuleCall> calls;
    NamedTensors state = state_of(c.call.states, n);
    std::int64_t first = 0;
    ExactTensors part;
    for (std::int64_t last : cuts(length)) {
      calls.push_back(part_of(c.call, n, first, last, state));
      part = evaluate(calls.back(), nullptr);
      append(whole.outputs, part.outputs);
      state = rounded(part.states, like);
      first = last;
    }
    append(whole.states, part.states); // once, though an empty sequence may have several pieces that end at its end
    if (!d) continue;
    NamedTensors d_state = state_of(d->states, n);
    std::vector<Exact> inputs;
    ExactTensors back;
    for (auto call = calls.rbegin(); call != calls.rend(); ++call) {
      const std::int64_t last = first;
      first -= call->rows();
      const ModuleCotangents loss{d->outputs.empty() ? NamedTensors{} : rows_of(d->outputs, start + first, start + last), d_state};
      back = evaluate(*call, &loss);
      inputs.push_back(back.inputs);
      add(whole.parameters, back.parameters);
      d_state = rounded(back.initials, like);
    }
    for (auto exact = inputs.rbegin(); exact != inputs.rend(); ++exact) append(whole.inputs, *exact);
    append(whole.initials, back.initials);
  }
  return whole;
}

} // namespace kdacheck
