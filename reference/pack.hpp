#pragma once
// Eight doubles that travel together: independent columns of the state, or independent channels of a gate.
//
// The certified recurrence is written once for a number type; with a pack as its real type it runs on all vector lanes.
// Every operation is one correctly rounded IEEE operation per lane, exactly as for a double.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__FMA__)
#include <immintrin.h> // compilers do not find the vector form of fused steps in every context
#endif
#if !defined(__AVX512F__)
#include "wide_pack.hpp"
#endif

namespace kdacheck::certified {

using HalfPack = double __attribute__((vector_size(32)));
using HalfBits = std::int64_t __attribute__((vector_size(32)));
#if defined(__AVX512F__)
using Pack = double __attribute__((vector_size(64)));
using PackBits = std::int64_t __attribute__((vector_size(64)));
[[gnu::always_inline]] inline HalfPack lower_half(const Pack& x) { return __builtin_shufflevector(x, x, 0, 1, 2, 3); }
[[gnu::always_inline]] inline HalfPack upper_half(const Pack& x) { return __builtin_shufflevector(x, x, 4, 5, 6, 7); }
[[gnu::always_inline]] inline Pack joined(const HalfPack& x, const HalfPack& y) {
  return __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7);
}
#else
using Pack = WidePack<HalfPack>;
using PackBits = WidePack<HalfBits>;
[[gnu::always_inline]] inline HalfPack lower_half(const Pack& x) { return x.lower; }
[[gnu::always_inline]] inline HalfPack upper_half(const Pack& x) { return x.upper; }
[[gnu::always_inline]] inline Pack joined(const HalfPack& x, const HalfPack& y) { return {x, y}; }
#endif
inline constexpr int pack_lanes = 8;

/// Lanes of a real type: 8 for a pack, 1 for a double.
template <class Real> inline constexpr int lanes_of = 1;
template <> inline constexpr int lanes_of<Pack> = pack_lanes;
template <> inline constexpr int lanes_of<HalfPack> = pack_lanes / 2;

/// The columns of wide numbers that travel together: as many as a register holds, for their sums fill all registers by themselves.
#if defined(__AVX512F__)
using RegisterPack = Pack;
#else
using RegisterPack = HalfPack;
#endif

/// The same number in every lane (the identity for a double).
template <class Real> [[gnu::always_inline]] inline Real broadcast(double x) {
  if constexpr (lanes_of<Real> == 1)
    return x;
  else
    return x - Real{};
}

template <class Real> [[gnu::always_inline]] inline double lane(const Real& x, int l) {
  if constexpr (lanes_of<Real> == 1)
    return x;
  else
    return x[l];
}

template <class Real> [[gnu::always_inline]] inline void set_lane(Real& x, int l, double value) {
  if constexpr (lanes_of<Real> == 1)
    x = value;
  else if constexpr (requires { x.lower; })
    (l < 4 ? x.lower[l] : x.upper[l - 4]) = value;
  else
    x[l] = value;
}

/// a b + c, rounded once.
[[gnu::always_inline]] inline double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }
[[gnu::always_inline]] inline HalfPack multiply_add(const HalfPack& a, const HalfPack& b, const HalfPack& c) {
#if defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#else
  HalfPack result;
  for (int l = 0; l < 4; ++l) result[l] = __builtin_fma(a[l], b[l], c[l]);
  return result;
#endif
}
[[gnu::always_inline]] inline HalfPack square_root(const HalfPack& x) {
#if defined(__FMA__)
  return _mm256_sqrt_pd(x);
#else
  HalfPack result;
  for (int l = 0; l < 4; ++l) result[l] = __builtin_sqrt(x[l]);
  return result;
#endif
}

[[gnu::always_inline]] inline double square_root(double x) { return std::sqrt(x); }
[[gnu::always_inline]] inline double absolute(double x) { return std::fabs(x); }
[[gnu::always_inline]] inline double larger(double a, double b) { return a > b ? a : b; }
[[gnu::always_inline]] inline double smaller(double a, double b) { return a < b ? a : b; }
[[gnu::always_inline]] inline double choose(bool condition, double a, double b) { return condition ? a : b; }
#if defined(__AVX512F__)
[[gnu::always_inline]] inline Pack multiply_add(const Pack& a, const Pack& b, const Pack& c) { return _mm512_fmadd_pd(a, b, c); }
[[gnu::always_inline]] inline Pack square_root(const Pack& x) { return _mm512_sqrt_pd(x); }
[[gnu::always_inline]] inline Pack choose(const PackBits& condition, const Pack& a, const Pack& b) { return condition ? a : b; }
[[gnu::always_inline]] inline PackBits bits_of(const Pack& x) { return (PackBits)x; }
[[gnu::always_inline]] inline Pack from_bits(const PackBits& x) { return (Pack)x; }
#else
[[gnu::always_inline]] inline Pack multiply_add(const Pack& a, const Pack& b, const Pack& c) {
  return {multiply_add(a.lower, b.lower, c.lower), multiply_add(a.upper, b.upper, c.upper)};
}
[[gnu::always_inline]] inline Pack square_root(const Pack& x) { return {square_root(x.lower), square_root(x.upper)}; }
[[gnu::always_inline]] inline Pack choose(const PackBits& condition, const Pack& a, const Pack& b) {
  return {condition.lower ? a.lower : b.lower, condition.upper ? a.upper : b.upper};
}
[[gnu::always_inline]] inline PackBits bits_of(const Pack& x) { return {(HalfBits)x.lower, (HalfBits)x.upper}; }
[[gnu::always_inline]] inline Pack from_bits(const PackBits& x) { return {(HalfPack)x.lower, (HalfPack)x.upper}; }
#endif
[[gnu::always_inline]] inline HalfPack choose(const HalfBits& condition, const HalfPack& a, const HalfPack& b) { return condition ? a : b; }
[[gnu::always_inline]] inline HalfBits bits_of(const HalfPack& x) { return (HalfBits)x; }
[[gnu::always_inline]] inline HalfPack from_bits(const HalfBits& x) { return (HalfPack)x; }
[[gnu::always_inline]] inline HalfPack absolute(const HalfPack& x) { return from_bits(bits_of(x) & std::int64_t{0x7fffffffffffffff}); }
[[gnu::always_inline]] inline HalfPack larger(const HalfPack& a, const HalfPack& b) { return choose(a > b, a, b); }
[[gnu::always_inline]] inline HalfPack smaller(const HalfPack& a, const HalfPack& b) { return choose(a < b, a, b); }
[[gnu::always_inline]] inline Pack absolute(const Pack& x) { return from_bits(bits_of(x) & std::int64_t{0x7fffffffffffffff}); }
[[gnu::always_inline]] inline Pack larger(const Pack& a, const Pack& b) { return choose(a > b, a, b); }
[[gnu::always_inline]] inline Pack smaller(const Pack& a, const Pack& b) { return choose(a < b, a, b); }

[[gnu::always_inline]] inline std::int64_t bits_of(double x) { return std::bit_cast<std::int64_t>(x); }
[[gnu::always_inline]] inline double from_bits(std::int64_t x) { return std::bit_cast<double>(x); }

/// As many doubles as there are lanes, from and to memory, a vector at a time (wide_pack.hpp says why).
template <class Real> [[gnu::always_inline]] inline Real load_doubles(const double* values) {
  if constexpr (requires(Real x) { x.lower; }) {
    return {load_doubles<HalfPack>(values), load_doubles<HalfPack>(values + 4)};
  } else {
    Real result;
    std::memcpy(&result, values, sizeof result);
    return result;
  }
}
template <class Real> [[gnu::always_inline]] inline void store_doubles(double* values, const Real& x) {
  if constexpr (requires { x.lower; }) {
    store_doubles(values, x.lower);
    store_doubles(values + 4, x.upper);
  } else {
    std::memcpy(values, &x, sizeof x);
  }
}

/// Look-up of table[index] lane by lane.
[[gnu::always_inline]] inline double gather(const double* table, std::int64_t index) { return table[index]; }
[[gnu::always_inline]] inline Pack gather(const double* table, const PackBits& index) {
  return joined(HalfPack{table[index[0]], table[index[1]], table[index[2]], table[index[3]]},
                HalfPack{table[index[4]], table[index[5]], table[index[6]], table[index[7]]});
}

/// 0 ... 7, and as many floats as there are lanes.
#if defined(__AVX512F__)
inline constexpr PackBits lane_numbers{0, 1, 2, 3, 4, 5, 6, 7};
#else
inline constexpr PackBits lane_numbers{HalfBits{0, 1, 2, 3}, HalfBits{4, 5, 6, 7}};
#endif
[[gnu::always_inline]] inline HalfPack load_four_floats(const float* values) {
  using Floats = float __attribute__((vector_size(16)));
  Floats four;
  std::memcpy(&four, values, sizeof four);
  return __builtin_convertvector(four, HalfPack);
}
template <class Real> [[gnu::always_inline]] inline Real load_floats(const float* values) {
  if constexpr (std::is_same_v<Real, HalfPack>)
    return load_four_floats(values);
  else
    return joined(load_four_floats(values), load_four_floats(values + 4));
}

/// Largest lane, and the sum of lanes as a balanced tree (three additions deep).
[[gnu::always_inline]] inline double largest_lane(double x) { return x; }
[[gnu::always_inline]] inline double largest_lane(const Pack& x) {
  return larger(larger(larger(x[0], x[1]), larger(x[2], x[3])), larger(larger(x[4], x[5]), larger(x[6], x[7])));
}
[[gnu::always_inline]] inline double sum_lanes(double x) { return x; }
[[gnu::always_inline]] inline double sum_lanes(const HalfPack& x) { return (x[0] + x[1]) + (x[2] + x[3]); }
[[gnu::always_inline]] inline double sum_lanes(const Pack& x) { return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])); }

/// How two halves are put together to add their lanes up.
[[gnu::always_inline]] inline HalfPack even_lanes(const HalfPack& x, const HalfPack& y) {
  return __builtin_shufflevector(x, y, 0, 4, 2, 6);
}
[[gnu::always_inline]] inline HalfPack odd_lanes(const HalfPack& x, const HalfPack& y) { return __builtin_shufflevector(x, y, 1, 5, 3, 7); }
[[gnu::always_inline]] inline HalfPack lower_lanes(const HalfPack& x, const HalfPack& y) {
  return __builtin_shufflevector(x, y, 0, 1, 4, 5);
}
[[gnu::always_inline]] inline HalfPack upper_lanes(const HalfPack& x, const HalfPack& y) {
  return __builtin_shufflevector(x, y, 2, 3, 6, 7);
}

/// Lane l of the result is the sum of the lanes of number[l], three additions deep.
template <class Number> [[gnu::always_inline]] inline Number lane_sums(const Number* number) {
  const auto folded = [&](int l) __attribute__((always_inline)) { return lower_half(number[l]) + upper_half(number[l]); };
  const auto of_four = [&](int first) __attribute__((always_inline)) {
    const auto a = folded(first), b = folded(first + 1), c = folded(first + 2), d = folded(first + 3);
    const auto ab = even_lanes(a, b) + odd_lanes(a, b), cd = even_lanes(c, d) + odd_lanes(c, d);
    return lower_lanes(ab, cd) + upper_lanes(ab, cd);
  };
  return joined(of_four(0), of_four(4));
}

} // namespace kdacheck::certified
