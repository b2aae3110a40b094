#pragma once
// exp, log and their kin built from + - * / and sqrt alone, so that every machine computes the same bits (the last bit
// of a library's transcendental functions differs between libraries). Accurate to a few units in the last place of
// fp64: inputs of a problem need to be well defined, not correctly rounded.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace kdacheck::portable {

/// 1/n, each correctly rounded.
inline constexpr auto reciprocal = [] {
  std::array<double, 24> table{};
  for (std::size_t n = 1; n < table.size(); ++n) table[n] = 1.0 / static_cast<double>(n);
  return table;
}();

/// 1/0!, 1/1!, -1/2!, -1/3!, 1/4!, ...: the Taylor coefficients of cosine (even) and sine (odd).
inline constexpr auto alternating_inverse_factorial = [] {
  std::array<double, 18> table{};
  double factorial = 1;
  for (std::size_t n = 0; n < table.size(); ++n) {
    table[n] = (n % 4 < 2 ? 1 : -1) / factorial;
    factorial *= static_cast<double>(n + 1); // exact up to 18!
  }
  return table;
}();

inline constexpr double ln2_high = 0x1.62e42fee00000p-1; ///< 32 significant bits: n ln2_high is exact for |n| < 2^20
inline constexpr double ln2_low = 0x1.a39ef35793c76p-33;

/// x 2^n for x of moderate size and a result that is normal, zero or infinite (subnormals are reached in two steps).
inline double scaled(double x, int n) {
  const auto power = [](int e) { return std::bit_cast<double>(static_cast<std::uint64_t>(e + 1023) << 52); };
  if (n < -1000) return n < -1100 ? 0.0 : x * power(-900) * power(n + 900);
  if (n > 1000) return x * power(1000) * power(n - 1000);
  return x * power(n);
}

/// e^x - 1 for |x| <= 0.35: the Taylor polynomial of degree 14 (remainder below 2^-60 |x|).
inline double expm1_near_zero(double x) {
  double sum = reciprocal[14];
#pragma GCC unroll 13
  for (std::size_t n = 13; n >= 1; --n) sum = (1.0 + x * sum) * reciprocal[n];
  return x * sum;
}

inline double exp(double x) {
  if (!(x > -746)) return x != x ? x : 0.0;
  if (x > 710) return std::numeric_limits<double>::infinity();
  const double n = std::floor(x * 0x1.71547652b82fep0 + 0.5);
  const double r = (x - n * ln2_high) - n * ln2_low;
  return scaled(1.0 + expm1_near_zero(r), static_cast<int>(n));
}

inline double expm1(double x) { return x > -0.35 && x < 0.35 ? expm1_near_zero(x) : exp(x) - 1.0; }

/// 2 artanh(s) for |s| <= 0.18.
inline double twice_artanh(double s) {
  const double square = s * s;
  double sum = 0;
#pragma GCC unroll 10
  for (std::size_t n = 21; n >= 3; n -= 2) sum = (sum + reciprocal[n]) * square;
  return 2.0 * s * (1.0 + sum);
}

/// ln x for normal x > 0.
inline double log_of_normal(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const double m = std::bit_cast<double>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  const bool large = m > 0x1.6a09e667f3bcdp0; // keep the significand near 1
  const double n = static_cast<double>(static_cast<std::int64_t>(bits >> 52) - 1023) + (large ? 1.0 : 0.0);
  const double near_one = large ? 0.5 * m : m;
  return n * ln2_high + (n * ln2_low + twice_artanh((near_one - 1.0) / (near_one + 1.0)));
}

/// ln x for x >= 0, -infinity at 0; NaN stays NaN.
inline double log(double x) {
  if (!(x < std::numeric_limits<double>::infinity())) return x;
  if (x == 0) return -std::numeric_limits<double>::infinity();
  if (x < 0x1p-1022) return log_of_normal(x * 0x1p60) - 60 * ln2_high - 60 * ln2_low;
  return log_of_normal(x);
}

/// ln(1 + x) for x > -1.
inline double log1p(double x) { return x > -0.25 && x < 0.4 ? twice_artanh(x / (2.0 + x)) : log(1.0 + x); }

struct CosineSine {
  double cosine, sine;
};

/// cos and sin of 2 pi u for u in [0, 1).
inline CosineSine cos_sin_turns(double u) {
  const double quarter = std::floor(4.0 * u + 0.5);
  const double x = (4.0 * u - quarter) * 0x1.921fb54442d18p0; // angle from the nearest axis, at most pi/4; the difference is exact
  const double square = x * x;
  double cosine = alternating_inverse_factorial[16], sine = alternating_inverse_factorial[17];
#pragma GCC unroll 8
  for (std::size_t n = 16; n >= 2; n -= 2) {
    cosine = alternating_inverse_factorial[n - 2] + square * cosine;
    sine = alternating_inverse_factorial[n - 1] + square * sine;
  }
  sine *= x;
  const bool odd = quarter == 1 || quarter == 3, cosine_negative = quarter == 1 || quarter == 2,
             sine_negative = quarter == 2 || quarter == 3;
  const double c = odd ? sine : cosine, s = odd ? cosine : sine;
  return {cosine_negative ? -c : c, sine_negative ? -s : s};
}

inline double sigmoid(double x) { return x >= 0 ? 1.0 / (1.0 + exp(-x)) : exp(x) / (1.0 + exp(x)); }
inline double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/// ln(p / (1 - p)): -infinity at 0, +infinity at 1.
inline double logit(double p) {
  if (p <= 0) return -std::numeric_limits<double>::infinity();
  if (p >= 1) return std::numeric_limits<double>::infinity();
  return log(p) - log1p(-p);
}

/// The x with softplus(x) = y, y >= 0; -infinity at 0.
inline double inverse_softplus(double y) {
  if (y <= 0) return -std::numeric_limits<double>::infinity();
  return y + log(-expm1(-y));
}

} // namespace kdacheck::portable
