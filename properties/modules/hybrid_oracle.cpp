#include "hybrid_oracle.hpp"

namespace kdacheck {

HybridForm hybrid_form(const modules::HybridStack& s) {
  HybridForm form{.latent = {}, .kda = layer_form(s.kda), .mla = latent_form(s.mla), .norm_epsilon = static_cast<double>(s.norm_epsilon)};
  for (const modules::Mixer mixer : s.pattern) form.latent.push_back(mixer == modules::Mixer::mla);
  return form;
}

} // namespace kdacheck
