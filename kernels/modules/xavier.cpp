#include "gating.hpp"
#include "gating_checks.hpp"

#include <Random123/philox.h>

#include <cmath>

namespace kdacheck::modules {
namespace {

enum class Matrix : std::uint32_t { down, up }; // part of the bits: append, never reorder

std::vector<float> xavier_matrix(std::int64_t rows, std::int64_t columns, std::uint64_t seed, Matrix matrix) {
  const double limit = std::sqrt(6.0 / static_cast<double>(rows + columns));
  const r123::Philox4x32::key_type key{{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}};
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  for (std::size_t i = 0; i < values.size(); i += 4) {
    const std::uint64_t block = i / 4;
    const auto bits =
        r123::Philox4x32{}(r123::Philox4x32::ctr_type{{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                                                       static_cast<std::uint32_t>(matrix), 0}},
                           key);
    for (std::size_t j = 0; j < 4 && i + j < values.size(); ++j) {
      const double centre = (static_cast<double>(bits[j]) + 0.5) * 0x1p-32; // of one of 2^32 equal parts of (0,1)
      values[i + j] = static_cast<float>(limit * (2 * centre - 1));
    }
  }
  return values;
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
