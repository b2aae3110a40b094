#include "evaluate_in.hpp"

#include <boost/multiprecision/mpfr.hpp>

namespace kdacheck {
namespace {

using Real = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<0>, boost::multiprecision::et_off>;

/// The default precision of this thread for as long as the object lives.
struct Precision {
  unsigned before = Real::thread_default_precision();
  explicit Precision(unsigned digits) { Real::thread_default_precision(digits); }
  ~Precision() { Real::thread_default_precision(before); }
  Precision(const Precision&) = delete;
  Precision& operator=(const Precision&) = delete;
};

} // namespace

Evaluation evaluate_mpfr_variable(const Problem& problem, Wanted wanted, unsigned digits) {
  const Precision precision(digits);
  return evaluate_in<Real>(problem, wanted, static_cast<int>(mpfr_get_prec(Real(1.0).backend().data())));
}

} // namespace kdacheck
