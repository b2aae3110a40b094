#include "evaluate_in.hpp"

#include <boost/multiprecision/mpfr.hpp>

namespace kdacheck {
namespace {
using Real = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<34, boost::multiprecision::allocate_stack>,
                                           boost::multiprecision::et_off>;
} // namespace

Evaluation evaluate_mpfr_113(const Problem& problem, Wanted wanted) {
  return evaluate_in<Real>(problem, wanted, std::numeric_limits<Real>::digits);
}

} // namespace kdacheck
