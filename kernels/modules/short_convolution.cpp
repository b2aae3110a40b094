// Sixteen channels at a time through all tokens of a sequence; blocks of channels are shared out to threads.

#include "short_convolution.hpp"

#include "gate_lanes.hpp"
#include "partial_lanes.hpp"

#include <algorithm>

namespace kdacheck::modules {
namespace {

using cpu::lane_count;

/// Sixteen channels of a sequence: where its tokens and its history stand.
struct Column {
  const ShortConvolution& conv;
  std::int64_t channel, width; ///< first channel, how many
  const float *u, *state;      ///< of the sequence's first token; null: no history
  std::int64_t at(std::int64_t t) const { return t * conv.channels + channel; }
  /// u_t, from the state for t < 0.
  Lanes input(std::int64_t t) const {
    if (t >= 0) return load_part(u + at(t), width);
    return state ? load_part(state + at(conv.history() + t), width) : Lanes{};
  }
  Lanes weight(std::int64_t j) const {
    Lanes lanes{};
    for (std::int64_t c = 0; c < width; ++c)
      lanes[static_cast<int>(c)] = conv.weight[static_cast<std::size_t>((channel + c) * conv.width + j)];
    return lanes;
  }
};

constexpr std::int64_t most_width = 16;

/// task(column block's first channel, channels in it) on threads.
template <class Task> void for_channels(const ShortConvolution& conv, std::size_t numbers, Task task) {
  constexpr std::size_t worth_threads = 1 << 18;
#pragma omp parallel for schedule(static) if (numbers > worth_threads)
  for (std::int64_t c = 0; c < conv.channels; c += lane_count) task(c, std::min(lane_count, conv.channels - c));
}

Column column_of(const ShortConvolution& conv, std::int64_t channel, std::int64_t width, std::int64_t n, std::int64_t first,
                 std::span<const float> u, std::span<const float> state) {
  return {conv, channel, width, u.data() + first * conv.channels,
          state.empty() ? nullptr : state.data() + n * conv.history() * conv.channels};
}

} // namespace

Convolved convolve(const ShortConvolution& conv, std::span<const std::int64_t> cu_seqlens, std::span<const float> u,
                   std::span<const float> state) {
  const auto N = static_cast<std::int64_t>(cu_seqlens.size()) - 1;
  Convolved result{std::vector<float>(u.size()), std::vector<float>(u.size()),
                   std::vector<float>(static_cast<std::size_t>(N * conv.history() * conv.channels))};
  for_channels(conv, u.size(), [&](std::int64_t channel, std::int64_t width) {
    Lanes weight[most_width], bias{};
    for (std::int64_t n = 0; n < N; ++n) {
      const std::int64_t first = cu_seqlens[static_cast<std::size_t>(n)], length = cu_seqlens[static_cast<std::size_t>(n + 1)] - first;
      const Column column = column_of(conv, channel, width, n, first, u, state);
      for (std::int64_t j = 0; j < conv.width; ++j) weight[j] = column.weight(j);
      if (!conv.bias.empty()) bias = load_part(conv.bias.data() + channel, width);
      for (std::int64_t t = 0; t < length; ++t) {
        Lanes a = bias;
        for (std::int64_t j = 0; j < conv.width; ++j) a = cpu::multiply_add(weight[j], column.input(t - conv.history() + j), a);
        const std::int64_t place = (first + t) * conv.channels + channel;
        store_part(result.a.data() + place, a, width);
        store_part(result.y.data() + place, a * Logistic(a).rising, width);
      }
      float* after = result.state.data() + n * conv.history() * conv.channels;
      for (std::int64_t i = 0; i < conv.history(); ++i) store_part(after + column.at(i), column.input(length - conv.history() + i), width);
    }
  });
  return result;
}

ConvolutionGradients convolve_backward(const ShortConvolution& conv, std::span<const std::int64_t> cu_seqlens, std::span<const float> u,
                                       std::span<const float> state, std::span<const float> a, std::span<const float> d_y,
                                       std::span<const float> d_state) {
  const auto N = static_cast<std::int64_t>(cu_seqlens.size()) - 1;
  const auto history = static_cast<std::size_t>(N * conv.history() * conv.channels);
  ConvolutionGradients d{std::vector<float>(u.size(), 0.0f), std::vector<float>(state.empty() ? 0 : history, 0.0f),
                         std::vector<float>(conv.weight.size()), std::vector<float>(conv.bias.size())};
  for_channels(conv, u.size(), [&](std::int64_t channel, std::int64_t width) {
    double weight_sums[most_width][lane_count] = {}, bias_sums[lane_count] = {};
    for (std::int64_t n = 0; n < N; ++n) {
      const std::int64_t first = cu_seqlens[static_cast<std::size_t>(n)], length = cu_seqlens[static_cast<std::size_t>(n + 1)] - first;
      const Column column = column_of(conv, channel, width, n, first, u, state);
      float* d_u = d.u.data() + first * conv.channels;
      float* d_before = d.state.empty() ? nullptr : d.state.data() + n * conv.history() * conv.channels;
      const auto add = [&](std::int64_t t, Lanes x) {
        float* place = t >= 0 ? d_u + column.at(t) : d_before ? d_before + column.at(conv.history() + t) : nullptr;
        if (place) store_part(place, load_part(place, width) + x, width);
      };
      if (!d_state.empty())
        for (std::int64_t i = 0; i < conv.history(); ++i)
          add(length - conv.history() + i, load_part(d_state.data() + n * conv.history() * conv.channels + column.at(i), width));
      for (std::int64_t t = 0; t < length; ++t) {
        const std::int64_t place = (first + t) * conv.channels + channel;
        const Lanes at = load_part(a.data() + place, width);
        const Logistic logistic(at);
        const Lanes d_a = load_part(d_y.data() + place, width) * (logistic.rising + at * (logistic.rising * logistic.falling));
        for (std::int64_t j = 0; j < conv.width; ++j) {
          const std::int64_t source = t - conv.history() + j;
          add(source, column.weight(j) * d_a);
          const Lanes x = column.input(source);
          for (std::int64_t c = 0; c < width; ++c)
            weight_sums[j][c] += static_cast<double>(x[static_cast<int>(c)]) * static_cast<double>(d_a[static_cast<int>(c)]);
        }
        for (std::int64_t c = 0; c < width; ++c) bias_sums[c] += static_cast<double>(d_a[static_cast<int>(c)]);
      }
    }
    for (std::int64_t c = 0; c < width; ++c) {
      for (std::int64_t j = 0; j < conv.width; ++j)
        d.weight[static_cast<std::size_t>((channel + c) * conv.width + j)] = static_cast<float>(weight_sums[j][c]);
      if (!d.bias.empty()) d.bias[static_cast<std::size_t>(channel + c)] = static_cast<float>(bias_sums[c]);
    }
  });
  return d;
}

} // namespace kdacheck::modules
