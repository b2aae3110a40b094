#pragma once
// Where a layer hands a tensor from one operation to the next. In exact arithmetic nothing happens there; a number type that
// models a storage format has overloads of its own, which round (properties/modules/perturbed_number.hpp).

#include "matrix.hpp"

#include <vector>

namespace kdacheck {

template <Number N> Matrix<N> stored(Matrix<N> x) { return x; }
template <Number N> std::vector<N> stored(std::vector<N> x) { return x; }

} // namespace kdacheck
