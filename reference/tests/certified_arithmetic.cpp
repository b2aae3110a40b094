#include "../double_double.hpp"
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

TEST_CASE("lane_sums gives every number's lanes added up, each number in its own lane") {
  using namespace certified;
  Pack plain[pack_lanes];
  DoubleDouble<Pack> wide[pack_lanes];
  for (int i = 0; i < pack_lanes; ++i)
    for (int l = 0; l < pack_lanes; ++l) { // sums of distinct powers of two name the lanes that went into them
      set_lane(plain[i], l, std::ldexp(1.0, l + 8 * i - 32));
      set_lane(wide[i].high, l, 1);
      set_lane(wide[i].low, l, std::ldexp(1.0, l + 8 * i - 160));
    }
  const Pack sums = lane_sums(plain);
  const DoubleDouble<Pack> wide_sums = lane_sums(wide);
  for (int i = 0; i < pack_lanes; ++i) {
    CHECK(sums[i] == std::ldexp(255.0, 8 * i - 32));
    CHECK(wide_sums.high[i] == 8);
    CHECK(wide_sums.low[i] == std::ldexp(255.0, 8 * i - 160));
  }
}
