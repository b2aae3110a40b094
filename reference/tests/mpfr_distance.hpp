#pragma once
// MPFR numbers of 2400 bits (any sum of doubles of the tests is exact in them) and distances from double-double numbers.

#include "../double_double.hpp"

#include <mpfr.h>

namespace kdacheck::test {

class Mpfr {
public:
  Mpfr(double x = 0) {
    mpfr_init2(x_, 2400);
    mpfr_set_d(x_, x, MPFR_RNDN);
  }
  explicit Mpfr(const certified::double_double& x) : Mpfr(x.high) { mpfr_add_d(x_, x_, x.low, MPFR_RNDN); }
  Mpfr(const Mpfr&) = delete;
  Mpfr& operator=(const Mpfr&) = delete;
  ~Mpfr() { mpfr_clear(x_); }
  mpfr_ptr get() { return x_; }
  mpfr_srcptr get() const { return x_; }

private:
  mpfr_t x_;
};

/// |x - exact| / |exact|, rounded up; 0 where both vanish.
inline double relative_distance(const Mpfr& exact, const certified::double_double& x) {
  Mpfr difference(x);
  mpfr_sub(difference.get(), difference.get(), exact.get(), MPFR_RNDA);
  if (mpfr_zero_p(difference.get())) return 0;
  mpfr_div(difference.get(), difference.get(), exact.get(), MPFR_RNDA);
  mpfr_abs(difference.get(), difference.get(), MPFR_RNDU);
  return mpfr_get_d(difference.get(), MPFR_RNDU);
}

} // namespace kdacheck::test
