#pragma once
// The error bounds hold for IEEE doubles, rounded to nearest after every operation as written, subnormals kept. This says so
// at compile time where it can, and looks at run time where the caller's environment decides.

#include <cfenv>
#include <cfloat>
#include <limits>
#include <stdexcept>
#include <string>

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__) ||             \
    __FINITE_MATH_ONLY__
#error "the certified recurrence must not be compiled with fast-math or a part of it"
#endif

namespace kdacheck::certified {

static_assert(std::numeric_limits<double>::is_iec559 && std::numeric_limits<double>::digits == 53);
static_assert(std::numeric_limits<double>::round_style == std::round_to_nearest);
static_assert(FLT_EVAL_METHOD == 0, "doubles must not be evaluated in excess precision");

namespace { // one copy in every file that includes it: the flags of that file are what is tested

/// Why arithmetic in this file and thread is not what the bounds need; nothing if it is.
[[maybe_unused]] const char* arithmetic_fault() {
  if (std::fegetround() != FE_TONEAREST) return "the rounding mode is not to nearest";
  // (1 + 2^-27)^2 = 1 + 2^-26 + 2^-54: rounded, the last term is lost; in one fused step or in excess precision it is not
  volatile double x = 1 + 0x1p-27, rest = -(1 + 0x1p-26);
  if (x * x + rest != 0) return "products and sums are contracted or kept in excess precision";
  // (a + b) - a = b only if sums may be rearranged; each is read once, so that the compiler knows that a is a
  volatile double given_large = 0x1p60, given_small = 1;
  const double large = given_large, small = given_small;
  if ((large + small) - large != 0) return "sums are rearranged";
  volatile double least_normal = std::numeric_limits<double>::min(), half = 0.5;
  if (least_normal * half == 0) return "subnormal numbers are flushed to zero";
  return nullptr;
}

/// Throws std::runtime_error with the reason if arithmetic is not strict.
[[maybe_unused]] void require_strict_arithmetic() {
  if (const char* fault = arithmetic_fault()) throw std::runtime_error(std::string("no certified result is possible: ") + fault);
}

} // namespace
} // namespace kdacheck::certified
