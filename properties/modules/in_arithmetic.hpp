#pragma once
// Calls a templated oracle in the arithmetic that is asked for.

#include "module_suite.hpp"
#include "perturbed_number.hpp"

namespace kdacheck {

/// oracle.template operator()<N>()
template <class Oracle> ExactTensors in_arithmetic(const ModuleArithmetic& arithmetic, Oracle oracle) {
  switch (arithmetic.kind) {
  case ModuleArithmetic::Kind::fp64: return oracle.template operator()<double>();
  case ModuleArithmetic::Kind::long_double: return oracle.template operator()<long double>();
  default:
    PerturbedNumber::start(arithmetic.kind == ModuleArithmetic::Kind::grid, arithmetic.seed);
    return oracle.template operator()<PerturbedNumber>();
  }
}

} // namespace kdacheck
