// Where the cotangents of the backward pass are not zero.

#include "regime_drawing.hpp"

namespace kdacheck {
namespace {

Recipe with_loss(std::string_view regime, std::uint64_t seed, Tier tier, LossPattern loss) {
  Recipe recipe = usual(regime, seed, tier);
  Dice dice(regime, seed);
  recipe.loss = loss;
  recipe.decay = dice.log_uniform(1e-3f, 2.0f);
  return recipe;
}

} // namespace

void append_loss_regimes(std::vector<Regime>& list) {
  list.push_back({"loss-on-outputs", "only o has a cotangent: the final state's must be taken as zero",
                  [](std::uint64_t seed, Tier tier) { return with_loss("loss-on-outputs", seed, tier, LossPattern::outputs_only); }});
  list.push_back(
      {"loss-on-final-state", "only the final state has a cotangent: dq is zero, every other gradient crosses all chunks",
       [](std::uint64_t seed, Tier tier) { return with_loss("loss-on-final-state", seed, tier, LossPattern::final_state_only); }});
  list.push_back({"loss-on-one-token", "one token has a cotangent: later tokens' gradients are zero",
                  [](std::uint64_t seed, Tier tier) { return with_loss("loss-on-one-token", seed, tier, LossPattern::single_token); }});
  list.push_back({"loss-on-one-head", "one head has a cotangent: every other head's gradients are zero", [](std::uint64_t seed, Tier tier) {
                    Recipe recipe = with_loss("loss-on-one-head", seed, tier, LossPattern::single_head);
                    if (recipe.shape.HV == 1) recipe.shape.HV = 2;
                    return recipe;
                  }});
}

} // namespace kdacheck
