#pragma once
// Cotangents for a case, places for its gradients, and the gradients in double.

#include "cases.hpp"

#include <map>

namespace kdacheck::cuda {

inline constexpr std::array wanted_gradients{Input::q, Input::k,    Input::v,     Input::a,       Input::b,
                                             Input::g, Input::beta, Input::A_log, Input::dt_bias, Input::initial_state};

/// Which cotangents a case has.
struct Losses {
  const char* name;
  bool d_o, d_final_state;
};

struct Backward {
  Owned d_o, d_final_state;
  std::map<Input, Owned> gradient;
  Cotangents cotangents;
};
Backward make_backward(const Case&, const Contract&, const Losses&, unsigned seed);

/// Exact gradients in the order of the tensors' elements, and the sum of squares of d A_log's terms, which may cancel.
std::map<Input, std::vector<double>> exact_gradients(const Case&, const Backward&, bool v_first, double& A_log_square);

} // namespace kdacheck::cuda
