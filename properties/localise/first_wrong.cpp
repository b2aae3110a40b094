// The first wrong place of a run: what comes later is replaced by what is exact, until the judge refuses nothing any more.
// Forward, later means later tokens, then the final state; backward the pass runs from the last token to the first.

#include "localise.hpp"

#include "../transform.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

/// A kernel's run with everything from a point on replaced by what is exact.
struct Masked {
  const Contract& contract;
  const Problem& problem;
  const Truth& truth;
  const Run& run;
  Judge& judge;

  struct Row {
    std::int64_t position, sequence, head;
    std::size_t at; ///< of its first element
    auto key() const { return std::tuple(position, sequence, head); }
  };

  /// Rows of o, earliest token first; then rows of the final state.
  std::vector<Row> rows(Output output) const {
    const auto& [B, T, H, HV, K, V] = problem.shape;
    std::vector<Row> all;
    for (const Sequence& sequence : sequences(problem))
      for (std::int64_t i = 0; i < (output == Output::o ? sequence.length : K); ++i)
        for (std::int64_t head = 0; head < HV; ++head) {
          const std::int64_t row = output == Output::o ? (sequence.first + i) * HV + head : (sequence.index * HV + head) * K + i;
          all.push_back({i, sequence.index, head, static_cast<std::size_t>(row * V)});
        }
    std::ranges::sort(all, {}, &Row::key);
    return all;
  }

  /// The judge's verdict if only the first `count` rows are the kernel's own.
  bool refused(Output output, const std::vector<Row>& all, std::size_t count) const {
    Run mixed;
    mixed.o.assign(truth.o.value.begin(), truth.o.value.end());
    for (float& x : mixed.o) x = round_to(contract.output, x);
    if (!run.final_state.empty()) mixed.final_state.assign(truth.final_state.value.begin(), truth.final_state.value.end());
    const std::vector<float>& from = run[output];
    std::vector<float>& to = output == Output::o ? mixed.o : mixed.final_state;
    const auto V = static_cast<std::size_t>(problem.shape.V);
    for (std::size_t i = 0; i < count; ++i)
      std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(all[i].at), V, to.begin() + static_cast<std::ptrdiff_t>(all[i].at));
    return is_failure(judge.forward(contract, problem, mixed).verdict);
  }

  std::optional<Row> first(Output output) const {
    const std::vector<Row> all = rows(output);
    if (all.empty() || run[output].empty() || !refused(output, all, all.size())) return std::nullopt;
    std::size_t right = 0, wrong = all.size();
    while (wrong - right > 1) {
      const std::size_t middle = (right + wrong) / 2;
      (refused(output, all, middle) ? wrong : right) = middle;
    }
    return all[wrong - 1];
  }

  std::int64_t worst_channel(Output output, const Row& row) const {
    std::int64_t worst = 0;
    double largest = -1;
    for (std::int64_t j = 0; j < problem.shape.V; ++j) {
      const auto at = row.at + static_cast<std::size_t>(j);
      const double error = std::abs(static_cast<double>(run[output][at]) - truth[output].value[at]);
      if (!(error <= largest)) largest = error, worst = j;
    }
    return worst;
  }
};

/// The same for gradients. What stands before the tokens (initial state, parameters) comes last.
struct MaskedGradients {
  const Contract& contract;
  const Problem& problem;
  const Truth& truth;
  const Run& run;
  Judge& judge;

  struct Row {
    std::int64_t position, sequence, token; ///< token: row of [B T]
    auto key() const { return std::pair(-position, sequence); }
  };

  std::vector<Row> rows() const {
    std::vector<Row> all;
    for (const Sequence& sequence : sequences(problem))
      for (std::int64_t i = 0; i < sequence.length; ++i) all.push_back({i, sequence.index, sequence.first + i});
    std::ranges::sort(all, {}, &Row::key);
    return all;
  }

  bool refused(const std::vector<Row>& all, std::size_t count) const {
    Run mixed = run;
    for (Input input : all_inputs) {
      std::vector<float>& to = mixed.gradient[static_cast<std::size_t>(input)];
      if (to.empty()) continue;
      const Format stored = input == Input::initial_state ? Format::fp32 : contract.gradient;
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = round_to(stored, static_cast<float>(truth[input].value[i]));
      const std::int64_t size = row_shape(input, problem.shape).size();
      for (std::size_t i = 0; size > 0 && i < count; ++i)
        std::copy_n(run.gradient[static_cast<std::size_t>(input)].begin() + all[i].token * size, size, to.begin() + all[i].token * size);
    }
    return is_failure(judge.backward(contract, problem, mixed).verdict);
  }

  std::optional<Row> first() const {
    const std::vector<Row> all = rows();
    if (all.empty() || !refused(all, all.size())) return std::nullopt;
    std::size_t right = 0, wrong = all.size();
    while (wrong - right > 1) {
      const std::size_t middle = (right + wrong) / 2;
      (refused(all, middle) ? wrong : right) = middle;
    }
    return all[wrong - 1];
  }

  /// The tensor, head and channel of the row that err most, for the size of that tensor.
  Place worst_of(const Row& row) const {
    Place place{.tensor = "", .sequence = row.sequence, .token = row.position, .chunk_position = row.position % contract.chunk};
    double largest = -1;
    for (Input input : all_inputs) {
      const RowShape shape = row_shape(input, problem.shape);
      const std::vector<float>& written = run.gradient[static_cast<std::size_t>(input)];
      if (shape.size() == 0 || written.empty()) continue;
      double size = 0;
      for (double x : truth[input].value) size = std::max(size, std::abs(x));
      for (std::int64_t i = 0; i < shape.size(); ++i) {
        const auto at = static_cast<std::size_t>(row.token * shape.size() + i);
        const double error = std::abs(static_cast<double>(written[at]) - truth[input].value[at]) / std::max(size, 1e-300);
        if (error <= largest) continue;
        largest = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
        place.tensor = "d" + std::string(name(input));
        place.head = i / shape.channels, place.channel = shape.channels > 1 ? i % shape.channels : -1;
      }
    }
    return place;
  }
};

} // namespace

std::optional<Place> first_wrong(const Contract& contract, const Problem& problem, const Run& run, Judge& judge) {
  const auto truth = judge.forward_truth(problem);
  const Masked masked{contract, problem, *truth, run, judge};
  if (run.o.size() != truth->o.value.size() || (!run.final_state.empty() && run.final_state.size() != truth->final_state.value.size()))
    return std::nullopt;
  if (const auto row = masked.first(Output::o))
    return Place{.tensor = "o",
                 .sequence = row->sequence,
                 .head = row->head,
                 .token = row->position,
                 .channel = masked.worst_channel(Output::o, *row),
                 .chunk_position = row->position % contract.chunk};
  if (const auto row = masked.first(Output::final_state))
    return Place{.tensor = "final_state",
                 .sequence = row->sequence,
                 .head = row->head,
                 .channel = masked.worst_channel(Output::final_state, *row),
                 .row = row->position};
  return std::nullopt;
}

std::optional<Place> first_wrong_gradient(const Contract& contract, const Problem& problem, const Run& run, Judge& judge) {
  const auto truth = judge.gradient_truth(problem);
  for (Input input : all_inputs)
    if (const auto& written = run.gradient[static_cast<std::size_t>(input)];
        !written.empty() && written.size() != (*truth)[input].value.size())
      return std::nullopt;
  const MaskedGradients masked{contract, problem, *truth, run, judge};
  const auto row = masked.first();
  return row ? std::optional(masked.worst_of(*row)) : std::nullopt;
}

} // namespace kdacheck
