#pragma once
// Eight noise draws side by side: every number of a perturbed run is a vector of the same quantity in eight draws.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace kdacheck {

inline constexpr int draws_per_batch = 8;

#if defined(__AVX512F__)
inline constexpr int register_bytes = 64;
#elif defined(__AVX__)
inline constexpr int register_bytes = 32;
#else
inline constexpr int register_bytes = 16;
#endif

/// A vector in two halves, for what is longer than a register: the compiler takes a longer vector of its own apart through memory
/// (a sum of products took 2.7 times as long with AVX2). The arithmetic of an element is the same at any length of register.
template <class T, class Half> struct Halves {
  Half low, high;

  T& operator[](int lane) { return reinterpret_cast<T*>(this)[lane]; } // a vector may be read by its elements
  const T& operator[](int lane) const { return reinterpret_cast<const T*>(this)[lane]; }

#define KDACHECK_LANES_OPERATOR(op)                                                                                                        \
  friend Halves operator op(const Halves& x, const Halves& y) { return {x.low op y.low, x.high op y.high}; }                               \
  friend Halves operator op(const Halves& x, T y) { return {x.low op y, x.high op y}; }                                                    \
  friend Halves operator op(T x, const Halves& y) { return {x op y.low, x op y.high}; }                                                    \
  template <class Y> friend Halves& operator op##=(Halves& x, const Y& y) { return x = x op y; }
  KDACHECK_LANES_OPERATOR(+)
  KDACHECK_LANES_OPERATOR(-)
  KDACHECK_LANES_OPERATOR(*)
  KDACHECK_LANES_OPERATOR(/)
  KDACHECK_LANES_OPERATOR(&)
  KDACHECK_LANES_OPERATOR(|)
  KDACHECK_LANES_OPERATOR(^)
#undef KDACHECK_LANES_OPERATOR
  friend Halves operator-(const Halves& x) { return {-x.low, -x.high}; }
  friend Halves operator<<(const Halves& x, int by) { return {x.low << by, x.high << by}; }
  friend Halves operator>>(const Halves& x, int by) { return {x.low >> by, x.high >> by}; }
  friend auto operator<(const Halves& x, T y) {
    return Halves<std::int64_t, std::remove_cvref_t<decltype(x.low < y)>>{x.low < y, x.high < y};
  }
  friend auto operator>(const Halves& x, T y) {
    return Halves<std::int64_t, std::remove_cvref_t<decltype(x.low > y)>>{x.low > y, x.high > y};
  }
  friend auto operator>=(const Halves& x, T y) {
    return Halves<std::int64_t, std::remove_cvref_t<decltype(x.low >= y)>>{x.low >= y, x.high >= y};
  }
};

template <class T, int bytes> struct LanesOf {
  using type = Halves<T, typename LanesOf<T, bytes / 2>::type>;
};
template <class T> struct LanesOf<T, register_bytes> {
  typedef T type __attribute__((vector_size(register_bytes)));
};

using Lanes = LanesOf<double, 8 * draws_per_batch>::type;
using LaneBits = LanesOf<std::uint64_t, 8 * draws_per_batch>::type;

/// Lane by lane: x where the mask of a comparison is set, else y.
template <class Mask, class Vector> Vector select(Mask mask, Vector x, Vector y) { return mask ? x : y; }
template <class Mask, class T, class Half>
Halves<T, Half> select(const Halves<std::int64_t, Mask>& mask, const Halves<T, Half>& x, const Halves<T, Half>& y) {
  return {select(mask.low, x.low, y.low), select(mask.high, x.high, y.high)};
}

/// The same bits as another type of element.
template <class To, class From> To reinterpreted(const From& x) {
  if constexpr (requires { x.low; })
    return {reinterpreted<decltype(To::low)>(x.low), reinterpreted<decltype(To::high)>(x.high)};
  else
    return std::bit_cast<To>(x);
}
inline LaneBits bits_of(const Lanes& x) { return reinterpreted<LaneBits>(x); }
inline Lanes lanes_of(const LaneBits& bits) { return reinterpreted<Lanes>(bits); }

inline Lanes lanes(double x) { return Lanes{} + x; }

inline Lanes absolute(const Lanes& x) { return lanes_of(bits_of(x) & 0x7fffffffffffffffull); }
inline Lanes minimum(const Lanes& x, double y) { return select(x < y, x, lanes(y)); }

/// e^min(x, cap) of every draw.
inline double exponential_below(double x, double cap) { return std::exp(std::min(x, cap)); }
inline Lanes exponential_below(Lanes x, double cap) {
  for (int lane = 0; lane < draws_per_batch; ++lane) x[lane] = exponential_below(x[lane], cap);
  return x;
}

/// Uniform in [-1, 1) from the upper 52 bits.
inline Lanes symmetric(const LaneBits& bits) { return lanes_of((bits >> 12) | 0x4000000000000000ull) - 3.0; }

/// One step of SplitMix64 (Steele, Lea, Flood 2014): a bijection that scatters every bit.
constexpr std::uint64_t scatter(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Eight independent xorshift128+ streams (Vigna 2014); only their upper 52 bits are used.
class LaneGenerator {
public:
  explicit LaneGenerator(std::uint64_t seed) {
    for (int lane = 0; lane < draws_per_batch; ++lane) {
      first_[lane] = scatter(seed + 2 * static_cast<std::uint64_t>(lane) + 1);
      second_[lane] = scatter(first_[lane] ^ seed) | 1u; // never all zero
    }
  }
  LaneBits bits() {
    LaneBits x = first_;
    const LaneBits y = second_;
    first_ = y;
    x ^= x << 23;
    second_ = x ^ y ^ (x >> 17) ^ (y >> 26);
    return second_ + y;
  }
  Lanes uniform() { return symmetric(bits()); }

private:
  LaneBits first_, second_;
};

} // namespace kdacheck
