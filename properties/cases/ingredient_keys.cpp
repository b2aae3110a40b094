#include "ingredients.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace kdacheck {
namespace {

constexpr std::uint32_t every = 0xffffffffu; ///< sequence and token of what a head shares

struct Side {
  Draw row, base, index;
  float norm;
};

/// Channels of the largest 4^m that fits, 64 at most: their +-2^-m rows are orthonormal and dyadic, and sums of small
/// integers over them stay within the 8 bits of bf16.
std::uint32_t walsh_support(std::int64_t K) { return K >= 64 ? 64 : K >= 16 ? 16 : K >= 4 ? 4 : 1; }

std::uint32_t directions(const Recipe& recipe) {
  if (recipe.keys == KeyPattern::walsh) return std::min<std::uint32_t>(8, walsh_support(recipe.shape.K));
  return static_cast<std::uint32_t>(std::min<std::int64_t>(16, recipe.shape.K));
}

std::uint32_t exact_index(const Recipe& recipe, Draw draw, const TokenPlace& at) {
  const Stream base(recipe.seed, Draw::key_index, at.head, every, every);
  const Stream here(recipe.seed, draw, at.head, at.sequence, at.token);
  const std::uint32_t n = directions(recipe);
  return here.uniform(1) < recipe.key_noise ? here.below(n, 0) : base.below(n, 0);
}

void make_exact(const Recipe& recipe, const Side& side, const TokenPlace& at, std::span<double> row) {
  const Stream here(recipe.seed, side.index, at.head, at.sequence, at.token);
  const double sign = recipe.key_noise > 0 && here.bits(2) & 1 ? -side.norm : side.norm;
  const std::uint32_t index = exact_index(recipe, side.index, at);
  std::fill(row.begin(), row.end(), 0.0);
  if (recipe.keys == KeyPattern::signed_unit) {
    row[index] = sign;
    return;
  }
  const std::uint32_t n = walsh_support(recipe.shape.K);
  const std::uint32_t pattern = (index * 5 + 1) % n; // odd multiples: distinct, spread over the rows
  const double entry = sign / std::sqrt(static_cast<double>(n));
  for (std::uint32_t c = 0; c < n; ++c) row[c] = std::popcount(c & pattern) & 1 ? -entry : entry;
}

double length_of(std::span<const double> row) {
  double sum = 0;
  for (double x : row) sum += x * x;
  return std::sqrt(sum);
}

void scale_to(std::span<double> row, double length) {
  const double now = length_of(row);
  if (now > 0)
    for (double& x : row) x = x / now * length;
}

/// A head's own direction, of length 1; a query adds one of its own where the key is the base itself.
void make_base(const Recipe& recipe, const Side& side, std::uint32_t head, std::span<double> row) {
  Stream(recipe.seed, Draw::key_base, head, every, every).fill_gaussian(row);
  if (recipe.keys == KeyPattern::constant && side.base == Draw::query_base) {
    std::vector<double> own(row.size());
    Stream(recipe.seed, Draw::query_base, head, every, every).fill_gaussian(own);
    for (std::size_t c = 0; c < row.size(); ++c) row[c] += own[c];
  }
  scale_to(row, 1.0);
}

/// Of KeyPattern::many_lengths: the length of a row for the longest. Steps by the golden ratio (tokens) and by other irrational numbers
/// (sequences, heads) leave no wide gap however few there are; queries are half a range away, so that short keys meet longer ones.
double length_factor(const Recipe& recipe, const Side& side, const TokenPlace& at) {
  if (!(recipe.key_noise > 0)) return 1;
  const double step = 0.6180339887498949 * at.token + 0.7548776662466927 * at.sequence + 0.3819660112501051 * at.head +
                      (side.base == Draw::query_base ? 0.5 : 0.0);
  return portable::exp((1 - (step - std::floor(step))) * portable::log(recipe.key_noise));
}

void make_row(const Recipe& recipe, const Side& side, const TokenPlace& at, std::span<double> row) {
  const Stream here(recipe.seed, side.row, at.head, at.sequence, at.token);
  const double K = static_cast<double>(row.size());
  double typical = 1; // root mean square of |row| as drawn
  double norm = side.norm;
  switch (recipe.keys) {
  case KeyPattern::signed_unit:
  case KeyPattern::walsh: make_exact(recipe, side, at, row); return;
  case KeyPattern::gaussian:
    here.fill_gaussian(row);
    typical = std::sqrt(K);
    break;
  case KeyPattern::uniform:
    here.fill_uniform(row);
    typical = std::sqrt(K / 3);
    break;
  case KeyPattern::sparse_zero:
    if (Stream(recipe.seed, side.index, at.head, at.sequence, at.token).uniform(0) < recipe.key_noise) {
      std::fill(row.begin(), row.end(), 0.0);
      return;
    }
    here.fill_gaussian(row);
    typical = std::sqrt(K);
    break;
  case KeyPattern::many_lengths:
    here.fill_gaussian(row);
    typical = std::sqrt(K);
    norm *= length_factor(recipe, side, at);
    break;
  case KeyPattern::constant: make_base(recipe, side, at.head, row); break;
  case KeyPattern::near_identical:
  case KeyPattern::alternating: {
    std::vector<double> noise(row.size());
    here.fill_gaussian(noise);
    make_base(recipe, side, at.head, row);
    const double sign = recipe.keys == KeyPattern::alternating && at.token % 2 == 1 ? -1.0 : 1.0;
    for (std::size_t c = 0; c < row.size(); ++c)
      row[c] = (1.0 - recipe.key_noise) * sign * row[c] + recipe.key_noise * noise[c] / std::sqrt(K);
    break;
  }
  }
  if (recipe.options.l2norm)
    for (double& x : row) x = x / typical * norm;
  else
    scale_to(row, norm);
}

} // namespace

std::uint32_t key_index(const Recipe& recipe, const TokenPlace& at) { return exact_index(recipe, Draw::key_index, at); }

void make_key(const Recipe& recipe, const TokenPlace& at, std::span<double> row) {
  make_row(recipe, {Draw::key, Draw::key_base, Draw::key_index, recipe.key_norm}, at, row);
}

void make_query(const Recipe& recipe, const TokenPlace& at, std::span<double> row) {
  make_row(recipe, {Draw::query, Draw::query_base, Draw::query_index, recipe.query_norm}, at, row);
}

} // namespace kdacheck
