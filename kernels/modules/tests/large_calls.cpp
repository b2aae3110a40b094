// Calls that are shared out to threads and go block by block, which those of properties/modules are too small for.

#include "../gated_norm.hpp"
#include "../linear.hpp"
#include "../short_convolution.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <omp.h>

using namespace kdacheck::modules;

namespace {

std::vector<float> wave(std::int64_t count, float step = 0.7f) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(step * static_cast<float>(i * i % 1009));
  return x;
}

std::span<const float> rows_of(const std::vector<float>& x, std::int64_t first, std::int64_t count, std::int64_t width) {
  return std::span(x).subspan(static_cast<std::size_t>(first * width), static_cast<std::size_t>(count * width));
}

/// `work` with one thread and with three: the second result.
template <class Work> auto with_threads(Work work) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = work();
  omp_set_num_threads(3);
  const auto several = work();
  omp_set_num_threads(threads);
  return std::pair(one, several);
}

bool same(const std::vector<float>& one, std::span<const float> other) {
  return one.size() == other.size() && std::equal(one.begin(), one.end(), other.begin());
}

} // namespace

TEST_CASE("a row of a large projection has the bits of a call of its own, and a projection's slopes those of any number of threads") {
  constexpr std::int64_t rows = 70, in = 270, out = 300; // more than 4e6 multiply-adds, more columns than a block either way
  const std::vector<float> x = wave(rows * in), weight = wave(in * out, 0.3f), d_y = wave(rows * out, 0.9f);
  const Linear l{in, out, weight};
  const auto [one, several] = with_threads([&] { return linear(l, rows, x); });
  CHECK(one == several);
  for (const std::int64_t row : {std::int64_t{0}, std::int64_t{17}, rows - 1})
    CHECK(same(linear(l, 1, rows_of(x, row, 1, in)), rows_of(one, row, 1, out)));
  for (const std::int64_t row : {std::int64_t{0}, std::int64_t{17}, rows - 1})
    for (std::int64_t j = 0; j < out; ++j) { // 2^-24 of every product and partial sum
      double exact = 0, size = 0;
      for (std::int64_t i = 0; i < in; ++i) {
        const double term = static_cast<double>(x[static_cast<std::size_t>(row * in + i)]) * weight[static_cast<std::size_t>(i * out + j)];
        exact += term, size += std::abs(term);
      }
      REQUIRE(std::abs(one[static_cast<std::size_t>(row * out + j)] - exact) <= in * 0x1p-24 * size);
    }
  const auto [d_one, d_several] = with_threads([&] {
    std::vector<float> d_x(x.size(), 0.0f);
    add_linear_input_gradient(l, rows, d_y, d_x);
    return d_x;
  });
  CHECK(d_one == d_several);
  const auto [w_one, w_several] = with_threads([&] { return linear_weight_gradient(l, rows, x, d_y); });
  CHECK(w_one == w_several);
  for (const std::int64_t i : {std::int64_t{0}, std::int64_t{256}, in - 1})
    for (const std::int64_t j : {std::int64_t{0}, std::int64_t{255}, std::int64_t{256}, out - 1}) {
      double d_w = 0, w_size = 0, slope = 0, slope_size = 0; // of weight ij, and of x in row 17
      for (std::int64_t row = 0; row < rows; ++row) {
        const double term = static_cast<double>(x[static_cast<std::size_t>(row * in + i)]) * d_y[static_cast<std::size_t>(row * out + j)];
        d_w += term, w_size += std::abs(term);
      }
      CHECK(std::abs(w_one[static_cast<std::size_t>(i * out + j)] - d_w) <= rows * 0x1p-24 * w_size);
      for (std::int64_t m = 0; m < out; ++m) {
        const double term =
            static_cast<double>(d_y[static_cast<std::size_t>(17 * out + m)]) * weight[static_cast<std::size_t>(i * out + m)];
        slope += term, slope_size += std::abs(term);
      }
      CHECK(std::abs(d_one[static_cast<std::size_t>(17 * in + i)] - slope) <= out * 0x1p-24 * slope_size);
    }
}

TEST_CASE("a row of a large gated norm has the bits of a call of its own, forward and backward") {
  constexpr std::int64_t rows = 700, heads = 3, V = 35, width = heads * V;
  const std::vector<float> o = wave(rows * width), gate = wave(rows * width, 0.3f), d_z = wave(rows * width, 0.9f), weight = wave(V, 0.5f);
  const GatedNorm norm{.heads = heads, .V = V, .epsilon = 1e-5f, .weight = weight};
  const auto [one, several] = with_threads([&] { return gated_norm(norm, rows, o, gate); });
  CHECK(one == several);
  const auto [d_one, d_several] = with_threads([&] { return gated_norm_backward(norm, rows, o, gate, d_z); });
  CHECK((d_one.o == d_several.o && d_one.gate == d_several.gate && d_one.weight == d_several.weight));
  for (const std::int64_t row : {std::int64_t{0}, std::int64_t{17}, rows - 1}) {
    const auto of = [&](const std::vector<float>& x) { return rows_of(x, row, 1, width); };
    CHECK(same(gated_norm(norm, 1, of(o), of(gate)), of(one)));
    const GatedNormGradients alone = gated_norm_backward(norm, 1, of(o), of(gate), of(d_z));
    CHECK((same(alone.o, of(d_one.o)) && same(alone.gate, of(d_one.gate))));
  }
}

TEST_CASE("a large convolution has the bits of its halves, the second from the first's state, forward and backward") {
  constexpr std::int64_t channels = 150, T = 2000, half = 901, history = 3;
  const std::vector<float> u = wave(T * channels), d_y = wave(T * channels, 0.9f), weight = wave(channels * 4, 0.3f);
  const ShortConvolution conv{.channels = channels, .width = 4, .weight = weight, .bias = {}};
  const std::vector<std::int64_t> all{0, T}, first{0, half}, second{0, T - half};
  const auto [one, several] = with_threads([&] { return convolve(conv, all, u, {}); });
  CHECK((one.y == several.y && one.a == several.a && one.state == several.state));
  const Convolved left = convolve(conv, first, rows_of(u, 0, half, channels), {});
  const Convolved right = convolve(conv, second, rows_of(u, half, T - half, channels), left.state);
  CHECK((same(left.y, rows_of(one.y, 0, half, channels)) && same(right.y, rows_of(one.y, half, T - half, channels))));
  CHECK(right.state == one.state);
  CHECK(same(left.state, rows_of(u, half - history, history, channels)));
  const auto [d_one, d_several] = with_threads([&] { return convolve_backward(conv, all, u, {}, one.a, d_y, {}); });
  CHECK((d_one.u == d_several.u && d_one.weight == d_several.weight));
  const ConvolutionGradients d_right = convolve_backward(conv, second, rows_of(u, half, T - half, channels), left.state, right.a,
                                                         rows_of(d_y, half, T - half, channels), {});
  CHECK(same(d_right.u, rows_of(d_one.u, half, T - half, channels)));
}
