#pragma once
// Eight lanes as two vectors of four, for processors whose vectors hold four doubles: compilers take a vector type twice as
// wide as a register apart lane by lane, which costs ten times the operations. Same operators, lane by lane, as the vector
// types of the compiler.

#include <cstdint>
#include <type_traits>

namespace kdacheck::certified {

/// `Half` is a vector of four doubles or of four 64-bit integers. Copied half by half, each a vector: compilers copy a plain struct of
/// vectors in shorter pieces, and a vector load that spans pieces just stored waits for all of them (gradients took four times as long).
template <class Half> struct WidePack {
  Half lower{}, upper{};
  using Lane = std::remove_cvref_t<decltype(lower[0])>;

  constexpr WidePack() = default;
  [[gnu::always_inline]] constexpr WidePack(const Half& low, const Half& up) : lower(low), upper(up) {}
  [[gnu::always_inline]] constexpr WidePack(const WidePack& x) : lower(x.lower), upper(x.upper) {}
  [[gnu::always_inline]] constexpr WidePack& operator=(const WidePack& x) {
    lower = x.lower;
    upper = x.upper;
    return *this;
  }
  [[gnu::always_inline]] Lane operator[](int l) const { return l < 4 ? lower[l] : upper[l - 4]; }
  [[gnu::always_inline]] friend WidePack operator-(const WidePack& x) { return {-x.lower, -x.upper}; }
};

// operators between packs, and between a pack and a number that all lanes share
#define KDACHECK_PACK_OPERATOR(op)                                                                                                         \
  template <class Half> [[gnu::always_inline]] inline auto operator op(const WidePack<Half>& x, const WidePack<Half>& y) {                 \
    return WidePack<std::remove_cvref_t<decltype(x.lower op y.lower)>>{x.lower op y.lower, x.upper op y.upper};                            \
  }                                                                                                                                        \
  template <class Half>                                                                                                                    \
  [[gnu::always_inline]] inline auto operator op(const WidePack<Half>& x, std::type_identity_t<typename WidePack<Half>::Lane> y) {         \
    return WidePack<std::remove_cvref_t<decltype(x.lower op y)>>{x.lower op y, x.upper op y};                                              \
  }                                                                                                                                        \
  template <class Half>                                                                                                                    \
  [[gnu::always_inline]] inline auto operator op(std::type_identity_t<typename WidePack<Half>::Lane> x, const WidePack<Half>& y) {         \
    return WidePack<std::remove_cvref_t<decltype(x op y.lower)>>{x op y.lower, x op y.upper};                                              \
  }
KDACHECK_PACK_OPERATOR(+)
KDACHECK_PACK_OPERATOR(-)
KDACHECK_PACK_OPERATOR(*)
KDACHECK_PACK_OPERATOR(/)
KDACHECK_PACK_OPERATOR(&)
KDACHECK_PACK_OPERATOR(|)
KDACHECK_PACK_OPERATOR(<<)
KDACHECK_PACK_OPERATOR(>>)
KDACHECK_PACK_OPERATOR(<)
KDACHECK_PACK_OPERATOR(<=)
KDACHECK_PACK_OPERATOR(>)
KDACHECK_PACK_OPERATOR(>=)
KDACHECK_PACK_OPERATOR(==)
#undef KDACHECK_PACK_OPERATOR

} // namespace kdacheck::certified
