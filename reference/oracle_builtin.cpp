#include "evaluate_in.hpp"

namespace kdacheck {

Evaluation evaluate_fp64(const Problem& problem, Wanted wanted) { return evaluate_in<double>(problem, wanted, 53); }
Evaluation evaluate_long_double(const Problem& problem, Wanted wanted) { return evaluate_in<long double>(problem, wanted, 64); }

} // namespace kdacheck
