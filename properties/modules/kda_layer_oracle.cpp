#include "kda_layer_oracle.hpp"

namespace kdacheck {

LayerForm layer_form(const modules::KdaLayer& l) {
  return {.H = l.H,
          .HV = l.HV,
          .K = l.K,
          .V = l.V,
          .conv_width = l.conv_width,
          .gate = l.gate,
          .lower_bound = static_cast<double>(l.lower_bound),
          .scale = static_cast<double>(l.scale()),
          .norm_epsilon = static_cast<double>(l.norm_epsilon),
          .beta = l.negative_eigenvalues ? BetaForm::twice_sigmoid : BetaForm::sigmoid};
}

} // namespace kdacheck
