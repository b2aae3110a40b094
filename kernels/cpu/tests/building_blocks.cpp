#include "../decay.hpp"
#include "../inverse.hpp"
#include "../lanes.hpp"
#include "../operand.hpp"
#include "../product.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <limits>
#include <random>
#include <vector>

using namespace kdacheck;
using namespace kdacheck::cpu;

namespace {

float exp_of_one(float x) {
  float lanes[lane_count];
  store(lanes, exp_of(broadcast(x)));
  return lanes[5];
}

std::vector<float> random_numbers(std::int64_t count, std::uint32_t seed) {
  std::mt19937 bits(seed);
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& x : numbers) x = static_cast<float>(static_cast<double>(bits()) * 0x1p-31 - 1);
  return numbers;
}

} // namespace

TEST_CASE("the exponential is within the declared two units in the last place over its whole range") {
  double worst = 0;
  for (std::uint32_t bits = 0x80000000u; bits <= 0xc2d00000u; bits += 997) { // -0 to -104
    const float x = std::bit_cast<float>(bits);
    const double exact = std::exp(static_cast<double>(x));
    const double unit = std::max(std::ldexp(1.0, std::ilogb(exact) - 23), 0x1p-149);
    const double error = std::fabs(exp_of_one(x) - exact) / unit;
    if (!(error <= worst)) worst = error;
  }
  CHECK(worst < 2);
  CHECK(exp_of_one(0.0f) == 1);
  CHECK(exp_of_one(-0.0f) == 1);
  for (float x : {-104.0f, -1e3f, -1e6f, -1e30f, -std::numeric_limits<float>::infinity()}) CHECK(exp_of_one(x) == 0);
  CHECK(std::isnan(exp_of_one(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("a product agrees with fp64 for every part, count of rows and way of storing") {
  for (std::int64_t n : {1, 5, 8, 9, 16, 23, 40})
    for (std::int64_t columns : {16, 32, 48})
      for (Part part : {Part::full, Part::lower, Part::strict_lower, Part::upper, Part::strict_upper})
        for (Into into : {Into::assign, Into::add, Into::subtract})
          for (bool turned : {false, true}) {
            const auto left = random_numbers(n * n, 1), right = random_numbers(n * columns, 2), before = random_numbers(n * columns, 3);
            auto target = before;
            const Left view = turned ? Left{left.data(), 1, n} : Left{left.data(), n, 1};
            product(n, columns, n, view, right.data(), columns, into, target.data(), columns, part);
            double worst = 0;
            for (std::int64_t i = 0; i < n; ++i)
              for (std::int64_t j = 0; j < columns; ++j) {
                double sum = 0;
                for (std::int64_t m = 0; m < n; ++m) {
                  const bool taken = part == Part::full || (part == Part::lower && m <= i) || (part == Part::strict_lower && m < i) ||
                                     (part == Part::upper && m >= i) || (part == Part::strict_upper && m > i);
                  if (taken)
                    sum += static_cast<double>(left[static_cast<std::size_t>(turned ? m * n + i : i * n + m)]) *
                           right[static_cast<std::size_t>(m * columns + j)];
                }
                const auto at = static_cast<std::size_t>(i * columns + j);
                const double expected = into == Into::assign ? sum : before[at] + (into == Into::add ? sum : -sum);
                const double error = std::fabs(target[at] - expected);
                if (!(error <= worst)) worst = error;
              }
            INFO(n << " rows, " << columns << " columns, part " << static_cast<int>(part) << " into " << static_cast<int>(into));
            CHECK(worst < 0x1p-24 * static_cast<double>(n + 1) * static_cast<double>(n + 1)); // n additions of at most n in size
          }
}

TEST_CASE("a row of a product has the same bits whatever rows follow it") {
  const std::int64_t n = 37, columns = 32;
  const auto left = random_numbers(n * n, 4), right = random_numbers(n * columns, 5);
  std::vector<float> whole(static_cast<std::size_t>(n * columns)), part = whole;
  product(n, columns, n, {left.data(), n, 1}, right.data(), columns, Into::assign, whole.data(), columns, Part::lower);
  for (std::int64_t rows = 1; rows < n; ++rows) {
    product(rows, columns, n, {left.data(), n, 1}, right.data(), columns, Into::assign, part.data(), columns, Part::lower);
    CHECK(std::equal(part.begin(), part.begin() + rows * columns, whole.begin()));
  }
}

TEST_CASE("entries outside a triangle are not read") {
  const std::int64_t n = 21, columns = 16;
  auto left = random_numbers(n * n, 6);
  const auto right = random_numbers(n * columns, 7);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = i; j < n; ++j) left[static_cast<std::size_t>(i * n + j)] = std::numeric_limits<float>::quiet_NaN();
  auto finite = [](const std::vector<float>& x) { return std::all_of(x.begin(), x.end(), [](float y) { return std::isfinite(y); }); };
  std::vector<float> target(right.size(), 0.0f);
  product(n, columns, n, {left.data(), n, 1}, right.data(), columns, Into::assign, target.data(), columns, Part::strict_lower);
  CHECK(finite(target));
  target = right;
  solve_lower(n, columns, {left.data(), n, 1}, target.data(), columns);
  CHECK(finite(target));
  target = right;
  solve_lower_transposed(n, columns, {left.data(), n, 1}, target.data(), columns);
  CHECK(finite(target));
}

TEST_CASE("both substitutions and the inverse undo the triangle they solve") {
  for (std::int64_t n : {1, 7, 8, 15, 16, 33}) {
    const std::int64_t columns = 16;
    const auto left = random_numbers(n * n, 8), right = random_numbers(n * columns, 9);
    for (bool transposed : {false, true}) {
      auto x = right;
      if (transposed)
        solve_lower_transposed(n, columns, {left.data(), n, 1}, x.data(), columns);
      else
        solve_lower(n, columns, {left.data(), n, 1}, x.data(), columns);
      auto back = x;
      product(n, columns, n, transposed ? Left{left.data(), 1, n} : Left{left.data(), n, 1}, x.data(), columns, Into::add, back.data(),
              columns, transposed ? Part::strict_upper : Part::strict_lower);
      double worst = 0, size = 0;
      for (std::size_t i = 0; i < back.size(); ++i) {
        worst = std::max(worst, std::fabs(static_cast<double>(back[i]) - right[i]));
        size = std::max(size, std::fabs(static_cast<double>(x[i])));
      }
      CHECK(worst <= 0x1p-23 * static_cast<double>(n) * std::max(1.0, size)); // backward error of a substitution
    }
  }
}

TEST_CASE("operands are rounded as their format says, and fp16 ones keep their range") {
  auto numbers = random_numbers(64, 10);
  for (Format format : {Format::bf16, Format::tf32, Format::fp32}) {
    auto rounded = numbers;
    round_operand({format, false}, rounded.data(), 64);
    for (std::size_t i = 0; i < 64; ++i) CHECK(rounded[i] == round_to(format, numbers[i]));
  }
  auto cut = numbers;
  round_operand({Format::tf32, true}, cut.data(), 64);
  for (std::size_t i = 0; i < 64; ++i) CHECK(cut[i] == truncate_tf32(numbers[i]));
  for (float scale : {0x1p-140f, 0x1p-60f, 1.0f, 0x1p40f, 0x1p120f}) {
    std::vector<float> large(64), rounded(64);
    for (std::size_t i = 0; i < 64; ++i) rounded[i] = large[i] = numbers[i] * scale;
    round_operand({Format::fp16, false}, rounded.data(), 64);
    const float most = *std::max_element(large.begin(), large.end(), [](float x, float y) { return std::fabs(x) < std::fabs(y); });
    for (std::size_t i = 0; i < 64; ++i)
      CHECK(std::fabs(rounded[i] - large[i]) <= std::max(0x1p-11f * std::fabs(large[i]), 0x1p-38f * std::fabs(most)));
  }
  float nothing[16]{};
  round_operand({Format::fp16, false}, nothing, 16);
  CHECK(std::all_of(nothing, nothing + 16, [](float x) { return x == 0; }));
}
