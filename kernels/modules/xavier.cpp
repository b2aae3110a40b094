#include "gating.hpp"
#include "gating_checks.hpp"
#include "philox_uniform.hpp"

#include <cmath>

namespace kdacheck::modules {
namespace {

enum class Matrix : std::uint32_t { down, up }; // part of the bits: append, never reorder

std::vector<float> xavier_matrix(std::int64_t rows, std::int64_t columns, std::uint64_t seed, Matrix matrix) {
  return uniform_numbers(rows * columns, std::sqrt(6.0 / static_cast<double>(rows + columns)), seed, static_cast<std::uint32_t>(matrix));
}

} // namespace

GatingParameters xavier_parameters(const Gating& module, std::uint64_t seed) {
  check_module(module);
  GatingParameters parameters{.down = xavier_matrix(module.D, module.rank, seed, Matrix::down),
                              .up = xavier_matrix(module.rank, module.width(), seed, Matrix::up),
                              .A_log = {},
                              .dt_bias = {}};
  if (module.form == GateForm::sigmoid) return parameters;
  parameters.A_log.assign(static_cast<std::size_t>(module.H), 0.0f);
  parameters.dt_bias.assign(static_cast<std::size_t>(module.width()), 0.0f);
  return parameters;
}

} // namespace kdacheck::modules
