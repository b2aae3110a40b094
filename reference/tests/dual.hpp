#pragma once
// Dual numbers a + b epsilon, epsilon^2 = 0: the forward pass run on them is its own derivative along one direction.

#include "../token.hpp"

#include <cmath>

namespace kdacheck {

template <Number R> struct Dual {
  R value{0.0}, slope{0.0};

  Dual() = default;
  explicit Dual(double x) : value(x) {}
  Dual(R v, R s) : value(std::move(v)), slope(std::move(s)) {}

  friend Dual operator+(const Dual& x, const Dual& y) { return {R(x.value + y.value), R(x.slope + y.slope)}; }
  friend Dual operator-(const Dual& x, const Dual& y) { return {R(x.value - y.value), R(x.slope - y.slope)}; }
  friend Dual operator*(const Dual& x, const Dual& y) { return {R(x.value * y.value), R(x.slope * y.value + x.value * y.slope)}; }
  friend Dual operator/(const Dual& x, const Dual& y) {
    const R ratio = x.value / y.value;
    return {ratio, R((x.slope - ratio * y.slope) / y.value)};
  }
  friend Dual operator-(const Dual& x) { return {R(-x.value), R(-x.slope)}; }
  friend bool operator==(const Dual& x, const Dual& y) { return x.value == y.value && x.slope == y.slope; }
  friend bool operator<(const Dual& x, const Dual& y) { return x.value < y.value; }

  friend Dual exp(const Dual& x) {
    using std::exp;
    const R e = exp(x.value);
    return {e, R(e * x.slope)};
  }
  friend Dual log(const Dual& x) {
    using std::log;
    return {R(log(x.value)), R(x.slope / x.value)};
  }
  friend Dual log1p(const Dual& x) {
    using std::log1p;
    return {R(log1p(x.value)), R(x.slope / (R(1.0) + x.value))};
  }
  friend Dual sqrt(const Dual& x) {
    using std::sqrt;
    const R root = sqrt(x.value);
    return {root, R(x.slope / (root + root))};
  }
};

} // namespace kdacheck
