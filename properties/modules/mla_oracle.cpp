#include "mla_oracle.hpp"

#include <cmath>

namespace kdacheck {

LatentForm latent_form(const modules::Mla& m) {
  return {.H = m.H,
          .K = m.K,
          .K_shared = m.K_shared,
          .V = m.V,
          .rank = m.rank,
          .scale = static_cast<double>(static_cast<float>(1 / std::sqrt(static_cast<double>(m.K + m.K_shared)))), // not what the layer says
          .norm_epsilon = static_cast<double>(m.norm_epsilon)};
}

} // namespace kdacheck
