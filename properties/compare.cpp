#include "compare.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

namespace kdacheck {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// z by degrees of freedom, rounded down to a few steps so that each quantile is computed once.
class Factors {
public:
  Factors(std::int64_t groups, int draws) : groups_(groups), draws_(draws) {}
  struct Pair {
    double screening, deciding;
  };
  Pair of(Group group, double freedom) {
    const double step = *std::prev(std::ranges::upper_bound(freedom_steps, std::max(freedom, freedom_steps.front())));
    const auto [entry, added] = table_.try_emplace({group, step});
    if (added) entry->second = {confidence_factor(group, groups_, step, 0), confidence_factor(group, groups_, step, draws_)};
    return entry->second;
  }

private:
  std::int64_t groups_;
  int draws_;
  std::map<std::pair<Group, double>, Pair> table_;
};

/// The elements of one group, summed up.
struct GroupSum {
  double squares = 0, radius_squares = 0;
  std::int64_t count = 0;
  double largest = -1; ///< largest excess, and where
  std::int64_t where = 0;
  bool infinite = false; ///< holds a written infinity

  void add(double written, double excess, double radius, std::int64_t at) {
    infinite = infinite || std::isinf(written);
    squares += excess * excess;
    radius_squares += radius * radius;
    ++count;
    if (!(excess <= largest)) largest = excess, where = at;
  }
  double error() const { return count > 0 ? std::sqrt(squares / static_cast<double>(count)) : 0; }
  double radius() const { return count > 0 ? std::sqrt(radius_squares / static_cast<double>(count)) : 0; }
};

/// Excess of one written element over half an ulp; infinite for NaN and for an infinity that is not due.
double excess_of(double written, double exact, double radius, Format format) {
  if (std::isinf(written)) {
    // Rounding to nearest overflows from half an ulp above the largest number on; an error may have carried it there.
    const double threshold = largest(format) * (1 + unit_roundoff(format) / 2);
    if (std::signbit(written) == std::signbit(exact)) return std::max(0.0, threshold - (std::abs(exact) + radius));
    return infinity;
  }
  const double excess = std::abs(written - exact) - half_ulp(format, written);
  return excess > 0 ? excess : excess <= 0 ? 0.0 : infinity;
}

/// Error figures of a tensor, fed element by element, a token (or row) at a time. ulp_max counts in ulps of the larger of
/// the exact element and the rms of its line: where sums cancel, an element near 0 has no ulp of its own to be right in.
struct MetricSums {
  double squares = 0, exact_squares = 0, line = 0, exact_line = 0;
  struct Element {
    double error, exact;
    Format format;
  };
  std::vector<Element> elements{}; ///< of the line
  Metrics metrics{0, 0, 0, 0};

  void add(double written, double exact, Format format) {
    const double error = std::abs(written - exact);
    squares += error * error, exact_squares += exact * exact;
    line += error * error, exact_line += exact * exact;
    metrics.max_abs_err = std::isnan(error) ? infinity : std::max(metrics.max_abs_err, error);
    elements.push_back({error, std::abs(exact), format});
  }
  void end_line() {
    const double typical = elements.empty() ? 0 : std::sqrt(exact_line / static_cast<double>(elements.size()));
    for (const auto& [error, exact, format] : elements) {
      const double ulps = error / (2 * half_ulp(format, std::max(exact, typical)));
      metrics.ulp_max = std::isnan(ulps) ? infinity : std::max(metrics.ulp_max, ulps);
    }
    elements.clear();
    if (line > 0) metrics.token_rel_err_max = std::max(metrics.token_rel_err_max, std::sqrt(line / exact_line));
    if (std::isnan(line)) metrics.token_rel_err_max = infinity;
    line = exact_line = 0;
  }
  Metrics finish() {
    metrics.rms_rel_err = std::isnan(squares) ? infinity : squares > 0 ? std::sqrt(squares / exact_squares) : 0;
    return metrics;
  }
};

/// Turns group sums into utilisations and keeps the worst.
class Scale {
public:
  Scale(Comparison& result, std::int64_t groups, int draws) : result_(result), factors_(groups, draws) {}

  template <class PlaceOf>
  void weigh(Group kind, const GroupSum& sum, double sigma, double freedom, double proved, double size, PlaceOf&& place_of) {
    if (sum.count == 0) return;
    const double error = sum.error(), radius = sum.radius();
    if (sigma == infinity || std::isnan(sigma)) {
      if (!(error == 0)) result_.overflow = true;
      return;
    }
    const Factors::Pair z = factors_.of(kind, freedom);
    const auto ratio = [&](double factor) {
      if (error == 0) return 0.0;
      const double bound = factor * sigma + radius;
      return bound > 0 ? error / bound : infinity;
    };
    const double screening = ratio(z.screening);
    if (radius > negligible_radius)
      result_.radius_share = std::max(result_.radius_share, radius / std::max(z.screening * sigma, negligible_share * size));
    result_.deciding = std::max(result_.deciding, ratio(z.deciding));
    note(result_.margin[static_cast<std::size_t>(kind)], z.screening, least_factor(kind), (error - radius) / sigma);
    if (!std::isfinite(error) || (sum.infinite && screening > 1)) result_.non_finite = true;
    if (proved > 0) {
      const double share = sum.largest / (proved + radius * std::sqrt(static_cast<double>(sum.count)));
      result_.proved = std::isnan(share) ? infinity : std::max(result_.proved, share);
    }
    if (screening > result_.screening || result_.group.empty()) {
      result_.screening = screening;
      result_.group = name(kind);
      result_.place = place_of(sum.where);
      result_.error = error;
      result_.bound = z.screening * sigma + radius;
    }
  }

private:
  static void note(Margin& margin, double z, double least, double ratio) {
    if (!(ratio > 0) || !std::isfinite(ratio)) return; // no error, or one where nothing may err
    ++margin.groups;
    if (z <= least)
      margin.largest = std::max(margin.largest, ratio);
    else if (ratio / z > margin.quantile_share)
      margin.quantile_share = ratio / z, margin.quantile = z;
  }

  Comparison& result_;
  Factors factors_;
};

std::vector<GroupSum> sums(std::int64_t count) { return std::vector<GroupSum>(static_cast<std::size_t>(count)); }

} // namespace

Comparison compare_forward(const Contract& contract, const Problem& problem, const Truth& truth, const Budget& budget, const Run& run) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const std::int64_t N = sequence_count(problem);
  const bool with_state = !run.final_state.empty();
  Comparison result;
  Scale scale(result, B * T * HV + N * HV * V + (with_state ? N * HV * (K + V) : 0), budget.draws);
  MetricSums metrics;
  const OutputBudget& sigma = budget.output;
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < HV; ++head) {
      std::vector<GroupSum> channels = sums(V);
      double size = 0;
      for (std::int64_t t = 0; t < sequence.length; ++t)
        for (std::int64_t j = 0; j < V; ++j)
          size = std::max(size, std::abs(truth.o.value[static_cast<std::size_t>(((sequence.first + t) * HV + head) * V + j)]));
      for (std::int64_t t = 0; t < sequence.length; ++t) {
        const std::int64_t row = (sequence.first + t) * HV + head;
        GroupSum token;
        for (std::int64_t j = 0; j < V; ++j) {
          const auto at = static_cast<std::size_t>(row * V + j);
          const double exact = truth.o.value[at], radius = truth.o.radius[at], written = run.o[at];
          const double excess = excess_of(written, exact, radius, contract.output);
          token.add(written, excess, radius, j);
          channels[static_cast<std::size_t>(j)].add(written, excess, radius, t);
          metrics.add(written, exact, contract.output);
        }
        metrics.end_line();
        const auto group = static_cast<std::size_t>(row);
        scale.weigh(
            Group::token, token, sigma.token[group], sigma.token_freedom[group],
            budget.proved.token.empty() ? 0 : budget.proved.token[group], size, [&](std::int64_t j) {
              return Place{
                  .tensor = "o", .sequence = sequence.index, .head = head, .token = t, .channel = j, .chunk_position = t % contract.chunk};
            });
      }
      for (std::int64_t j = 0; j < V; ++j) {
        const auto group = static_cast<std::size_t>((sequence.index * HV + head) * V + j);
        scale.weigh(
            Group::channel, channels[static_cast<std::size_t>(j)], sigma.channel[group], sigma.channel_freedom[group], 0, size,
            [&](std::int64_t t) {
              return Place{
                  .tensor = "o", .sequence = sequence.index, .head = head, .token = t, .channel = j, .chunk_position = t % contract.chunk};
            });
      }
      if (!with_state) continue;
      std::vector<GroupSum> columns = sums(V);
      size = 0;
      for (std::int64_t i = 0; i < K * V; ++i)
        size = std::max(size, std::abs(truth.final_state.value[static_cast<std::size_t>((sequence.index * HV + head) * K * V + i)]));
      for (std::int64_t c = 0; c < K; ++c) {
        GroupSum state_row;
        for (std::int64_t j = 0; j < V; ++j) {
          const auto at = static_cast<std::size_t>(((sequence.index * HV + head) * K + c) * V + j);
          const double exact = truth.final_state.value[at], radius = truth.final_state.radius[at], written = run.final_state[at];
          const double excess = excess_of(written, exact, radius, Format::fp32);
          state_row.add(written, excess, radius, j);
          columns[static_cast<std::size_t>(j)].add(written, excess, radius, c);
          metrics.add(written, exact, Format::fp32);
        }
        metrics.end_line();
        const auto group = static_cast<std::size_t>((sequence.index * HV + head) * K + c);
        scale.weigh(Group::state_row, state_row, sigma.state_row[group], sigma.state_row_freedom[group],
                    budget.proved.state_row.empty() ? 0 : budget.proved.state_row[group], size, [&](std::int64_t j) {
                      return Place{.tensor = "final_state", .sequence = sequence.index, .head = head, .channel = j, .row = c};
                    });
      }
      for (std::int64_t j = 0; j < V; ++j) {
        const auto group = static_cast<std::size_t>((sequence.index * HV + head) * V + j);
        scale.weigh(Group::state_column, columns[static_cast<std::size_t>(j)], sigma.state_column[group], sigma.state_column_freedom[group],
                    0, size, [&](std::int64_t c) {
                      return Place{.tensor = "final_state", .sequence = sequence.index, .head = head, .channel = j, .row = c};
                    });
      }
    }
  result.metrics = metrics.finish();
  return result;
}

std::vector<double> token_utilisation(const Contract& contract, const Problem& problem, const Truth& truth, const Budget& budget,
                                      const Run& run) {
  const auto V = static_cast<std::size_t>(problem.shape.V);
  const OutputBudget& sigma = budget.output;
  Factors factors(static_cast<std::int64_t>(sigma.token.size()), budget.draws);
  std::vector<double> result(sigma.token.size(), 0.0);
  for (std::size_t row = 0; row < result.size(); ++row) {
    GroupSum token;
    for (std::size_t at = row * V; at < (row + 1) * V; ++at) {
      const double excess = excess_of(run.o[at], truth.o.value[at], truth.o.radius[at], contract.output);
      token.add(run.o[at], excess, truth.o.radius[at], 0);
    }
    if (!(sigma.token[row] < infinity) || token.error() == 0) continue;
    const double ratio = token.error() / (factors.of(Group::token, sigma.token_freedom[row]).screening * sigma.token[row] + token.radius());
    result[row] = std::isnan(ratio) ? infinity : ratio;
  }
  return result;
}

namespace {

/// Where element `at` of a gradient lies.
Place place_of(Input input, const Problem& problem, std::int64_t chunk, std::int64_t at) {
  const auto shape = shape_of(input, problem.shape, sequence_count(problem));
  Place place{.tensor = "d" + std::string(name(input))};
  const std::int64_t last = at % shape[3], third = at / shape[3] % shape[2], second = at / (shape[3] * shape[2]) % shape[1];
  const std::int64_t first = at / (shape[3] * shape[2] * shape[1]);
  switch (input) {
  case Input::A_log: place.head = first; return place;
  case Input::dt_bias: place.head = first, place.channel = second; return place;
  case Input::initial_state: place.sequence = first, place.head = second, place.row = third, place.channel = last; return place;
  default: break;
  }
  const std::int64_t row = first * shape[1] + second;
  for (const Sequence& sequence : sequences(problem))
    if (row >= sequence.first && row < sequence.first + sequence.length) {
      place.sequence = sequence.index;
      place.token = row - sequence.first;
      place.chunk_position = place.token % chunk;
    }
  place.head = third;
  if (input != Input::beta) place.channel = last;
  return place;
}

/// The channel group (GradientBudget::channel) of an element of a gradient.
class ChannelOf {
public:
  ChannelOf(Input input, const Problem& problem) : shape_(shape_of(input, problem.shape, sequence_count(problem))) {
    if (input == Input::initial_state || input == Input::A_log || input == Input::dt_bias) return;
    sequence_of_row_.resize(static_cast<std::size_t>(shape_[0] * shape_[1]));
    for (const Sequence& sequence : sequences(problem))
      std::fill_n(sequence_of_row_.begin() + sequence.first, sequence.length, sequence.index);
  }

  /// `line`: of GradientBudget::fine; `i`: place in it.
  std::size_t operator()(std::size_t line, std::size_t i) const {
    const auto l = static_cast<std::int64_t>(line);
    const std::int64_t lane =
        sequence_of_row_.empty() ? l / shape_[2] : sequence_of_row_[line / static_cast<std::size_t>(shape_[2])] * shape_[2] + l % shape_[2];
    return static_cast<std::size_t>(lane * shape_[3]) + i;
  }

private:
  std::array<std::int64_t, 4> shape_;
  std::vector<std::int64_t> sequence_of_row_; ///< of rows b T + t; empty for the initial state
};

} // namespace

Comparison compare_backward(const Contract& contract, const Problem& problem, const Truth& truth, const Budget& budget, const Run& run) {
  Comparison result;
  std::int64_t groups = 0;
  const auto compared = [&](Input input) { return !truth[input].empty() && !run.gradient[static_cast<std::size_t>(input)].empty(); };
  for (Input input : all_inputs) {
    const GradientBudget& sigma = budget.gradient[static_cast<std::size_t>(input)];
    if (compared(input)) groups += static_cast<std::int64_t>(sigma.fine.size() + sigma.channel.size());
  }
  Scale scale(result, groups, budget.draws);
  MetricSums metrics;
  for (Input input : all_inputs) {
    if (!compared(input)) continue;
    const GradientBudget& sigma = budget.gradient[static_cast<std::size_t>(input)];
    const std::vector<float>& written = run.gradient[static_cast<std::size_t>(input)];
    const Enclosed& exact = truth[input];
    const Format format =
        input == Input::initial_state || input == Input::A_log || input == Input::dt_bias ? Format::fp32 : contract.gradient;
    const std::size_t width = written.size() / std::max<std::size_t>(sigma.fine.size(), 1);
    const std::vector<double>& proved = budget.proved.gradient[static_cast<std::size_t>(input)];
    std::vector<GroupSum> channels(sigma.channel.size());
    const ChannelOf channel_of(input, problem);
    double size = 0;
    for (double x : exact.value) size = std::max(size, std::abs(x));
    for (std::size_t group = 0; group < sigma.fine.size(); ++group) {
      GroupSum sum;
      for (std::size_t i = group * width; i < (group + 1) * width; ++i) {
        const double excess = excess_of(written[i], exact.value[i], exact.radius[i], format);
        sum.add(written[i], excess, exact.radius[i], static_cast<std::int64_t>(i));
        if (!channels.empty())
          channels[channel_of(group, i - group * width)].add(written[i], excess, exact.radius[i], static_cast<std::int64_t>(i));
        metrics.add(written[i], exact.value[i], format);
      }
      metrics.end_line();
      scale.weigh(Group::gradient, sum, sigma.fine[group], sigma.freedom[group], proved.empty() ? 0 : proved[group], size,
                  [&](std::int64_t i) { return place_of(input, problem, contract.chunk, i); });
    }
    for (std::size_t group = 0; group < channels.size(); ++group)
      if (sigma.channel[group] < infinity) // or the token that it comes from has said so
        scale.weigh(Group::gradient_channel, channels[group], sigma.channel[group], sigma.channel_freedom[group], 0, size,
                    [&](std::int64_t i) { return place_of(input, problem, contract.chunk, i); });
  }
  result.metrics = metrics.finish();
  return result;
}

} // namespace kdacheck
