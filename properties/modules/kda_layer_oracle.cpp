#include "kda_layer_oracle.hpp"

#include <cmath>

namespace kdacheck {

LayerForm layer_form(const modules::KdaLayer& l) {
  return {.H = l.H,
          .HV = l.HV,
          .K = l.K,
          .V = l.V,
          .conv_width = l.conv_width,
          .gate = l.gate,
          .lower_bound = static_cast<double>(l.lower_bound),
          .scale = static_cast<double>(static_cast<float>(1 / std::sqrt(static_cast<double>(l.K)))), // not what the layer says it is
          .norm_epsilon = static_cast<double>(l.norm_epsilon),
          .beta = l.negative_eigenvalues ? BetaForm::twice_sigmoid : BetaForm::sigmoid};
}

} // namespace kdacheck
