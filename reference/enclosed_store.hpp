#pragma once
// From the numbers of an arithmetic to an Enclosed tensor.

#include "segment.hpp"
#include "truth.hpp"

namespace kdacheck::certified {

inline constexpr std::size_t element_count(const std::array<std::int64_t, 4>& shape) {
  return static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]);
}

/// An Enclosed tensor of that many elements; `low` only where the arithmetic has more than a double.
template <class Scalar> inline Enclosed make_enclosed(std::size_t elements) {
  Enclosed result;
  result.value.assign(elements, 0);
  if (!std::is_same_v<Scalar, double>) result.low.assign(elements, 0);
  result.radius.assign(elements, 0);
  return result;
}

/// Stores a number with its radius, to which the conversion to two doubles is added. What is not finite gets an infinite
/// radius and the value zero.
inline void store_enclosed(Enclosed& tensor, std::size_t at, double value, double low, double radius) {
  if (!(std::fabs(value) < std::numeric_limits<double>::infinity()) || !(radius < std::numeric_limits<double>::infinity())) {
    value = low = 0;
    radius = std::numeric_limits<double>::infinity();
  }
  tensor.value[at] = value;
  if (!tensor.low.empty()) tensor.low[at] = low;
  tensor.radius[at] = radius;
}

/// One number with its radius. Where the tensor has no second word, the number's own goes into the radius.
template <class Scalar> inline void store_number(Enclosed& tensor, std::size_t at, const Scalar& x, double radius) {
  if constexpr (requires { x.high; }) {
    if (tensor.low.empty())
      store_enclosed(tensor, at, x.high, 0, (radius + std::fabs(x.low)) * rounded_up);
    else
      store_enclosed(tensor, at, x.high, x.low, radius);
  } else if constexpr (Multiprecision<Scalar>) {
    // each of the two conversions is within an ulp: together 2^-52 2^-52 of the value
    const double value = leading(x);
    const bool finite = std::fabs(value) < std::numeric_limits<double>::infinity();
    const double low = finite ? leading(Scalar(x - exactly<Scalar>(value))) : 0;
    store_enclosed(tensor, at, value, low, (radius + 0x1p-104 * std::fabs(value)) * rounded_up + bound_floor);
  } else {
    store_enclosed(tensor, at, x, 0, radius);
  }
}

/// The lanes of a column number at consecutive places.
template <class Column>
inline void store_columns(Enclosed& tensor, std::size_t first, std::int64_t count, const Column& x, const Bound<Column>& radius) {
  using Real = Bound<Column>;
  if constexpr (lanes_of<Real> > 1) {
    // NaN or infinity in any lane makes this sum NaN
    if (count >= lanes_of<Real> && sum_lanes(Real(leading(x) * 0 + radius * 0)) == 0) {
      store_doubles(tensor.value.data() + first, leading(x));
      if constexpr (requires { x.low; }) store_doubles(tensor.low.data() + first, x.low);
      store_doubles(tensor.radius.data() + first, radius);
      return;
    }
  }
  for (int l = 0; l < lanes_of<Real> && l < count; ++l)
    store_number(tensor, first + static_cast<std::size_t>(l), number_lane(x, l), lane(radius, l));
}

} // namespace kdacheck::certified
