#include "mla_oracle.hpp"

namespace kdacheck {

LatentForm latent_form(const modules::Mla& m) {
  return {.H = m.H,
          .K = m.K,
          .K_shared = m.K_shared,
          .V = m.V,
          .rank = m.rank,
          .scale = static_cast<double>(m.scale()),
          .norm_epsilon = static_cast<double>(m.norm_epsilon)};
}

} // namespace kdacheck
