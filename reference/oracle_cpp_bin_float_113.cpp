#include "evaluate_in.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>

namespace kdacheck {
namespace {
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float_quad::backend_type, boost::multiprecision::et_off>;
} // namespace

Evaluation evaluate_cpp_bin_float_113(const Problem& problem, Wanted wanted) {
  return evaluate_in<Real>(problem, wanted, std::numeric_limits<Real>::digits);
}

} // namespace kdacheck
