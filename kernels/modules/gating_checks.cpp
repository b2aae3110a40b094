#include "gating_checks.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <fmt/core.h>
#include <limits>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

constexpr std::uint32_t exponent_mask = 0x7f800000u;

bool all_finite(std::span<const float> values) {
  std::uint32_t found = 0; // without a branch: this runs over every input of every call
  for (float x : values) found |= (std::bit_cast<std::uint32_t>(x) & exponent_mask) == exponent_mask ? 1u : 0u;
  return found == 0;
}

} // namespace

void check_count(const char* tensor, const char* shape, std::size_t count, std::int64_t wanted, bool may_be_absent) {
  if (count == 0 && may_be_absent) return;
  if (static_cast<std::int64_t>(count) != wanted)
    throw std::invalid_argument(fmt::format("gating: {} has {} numbers, its shape {} needs {}", tensor, count, shape, wanted));
}

void check_finite(const char* tensor, std::span<const float> values) {
  if (all_finite(values)) return;
  const auto bad = std::ranges::find_if(values, [](float x) { return !std::isfinite(x); });
  throw std::invalid_argument(fmt::format("gating: {} holds {} at element {}, all must be finite", tensor, *bad, bad - values.begin()));
}

void check_module(const Gating& module) {
  if (module.D < 1 || module.rank < 1 || module.H < 1 || module.K < 1)
    throw std::invalid_argument(
        fmt::format("gating: D = {}, rank = {}, H = {}, K = {} must all be positive", module.D, module.rank, module.H, module.K));
  if (module.form != GateForm::sigmoid && module.form != GateForm::softplus && module.form != GateForm::bounded)
    throw std::invalid_argument(fmt::format("gating: the gate form {} is not sigmoid, softplus or bounded", name(module.form)));
  if (!(module.lower_bound <= 0.0f) || !std::isfinite(module.lower_bound))
    throw std::invalid_argument(fmt::format("gating: lower_bound = {} must be finite and at most 0", module.lower_bound));
}

void check_gating_call(const Gating& module, const GatingParameters& parameters, const GatingInput& input) {
  check_module(module);
  if (input.B < 0 || input.T < 0) throw std::invalid_argument(fmt::format("gating: B = {}, T = {} must not be negative", input.B, input.T));
  const bool plain = module.form == GateForm::sigmoid;
  const char* width_name = module.per_head ? "[H]" : "[H,K]";
  check_count("x", "[B,T,D]", input.x.size(), input.B * input.T * module.D, false);
  check_count("down", "[D,rank]", parameters.down.size(), module.D * module.rank, false);
  check_count("up", module.per_head ? "[rank,H]" : "[rank,H*K]", parameters.up.size(), module.rank * module.width(), false);
  check_count("A_log", plain ? "[0] (the sigmoid form has none)" : "[H]", parameters.A_log.size(), plain ? 0 : module.H, false);
  check_count("dt_bias", plain ? "[0] (the sigmoid form has none)" : width_name, parameters.dt_bias.size(), plain ? 0 : module.width(),
              true);
  check_finite("down", parameters.down);
  check_finite("up", parameters.up);
  check_finite("dt_bias", parameters.dt_bias);
  for (float A : parameters.A_log)
    if (!(A < std::numeric_limits<float>::infinity()))
      throw std::invalid_argument(fmt::format("gating: A_log holds {}; it must be finite or -inf", A));
}

} // namespace kdacheck::modules
