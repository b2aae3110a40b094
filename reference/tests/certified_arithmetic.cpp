#include "../strict_arithmetic.hpp"
#include "../truth.hpp"
#include "random_problem.hpp"

#include <catch2/catch.hpp>

#include <xmmintrin.h>

using namespace kdacheck;

TEST_CASE("arithmetic is rounded once per operation, to nearest, as written") {
  const char* fault = certified::arithmetic_fault();
  CHECK(std::string(fault ? fault : "") == "");
}

TEST_CASE("another rounding mode is noticed and refused") {
  const Problem problem = test::random_problem(3);
  for (int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
    std::fesetround(mode);
    const bool noticed = certified::arithmetic_fault() != nullptr;
    bool refused = false;
    try {
      forward_truth(problem);
    } catch (const std::runtime_error&) {
      refused = true;
    }
    std::fesetround(FE_TONEAREST);
    CHECK(noticed);
    CHECK(refused);
  }
  CHECK_NOTHROW(forward_truth(problem));
}

TEST_CASE("flushing subnormals to zero is noticed and refused") {
  const Problem problem = test::random_problem(3);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040); // flush results and operands
  const bool noticed = certified::arithmetic_fault() != nullptr;
  bool refused = false;
  try {
    gradient_truth(problem);
  } catch (const std::runtime_error&) {
    refused = true;
  }
  _mm_setcsr(before);
  CHECK(noticed);
  CHECK(refused);
}
