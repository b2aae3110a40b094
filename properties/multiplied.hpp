#pragma once
// Results multiplied by a power of two or robbed of a part, and when a kernel must follow that bit for bit.

#include "run.hpp"

#include <cmath>

namespace kdacheck {

inline Run multiplied(Run run, float factor) {
  for (auto* values : {&run.o, &run.final_state})
    for (float& value : *values) value *= factor;
  for (auto& gradient : run.gradient)
    for (float& value : gradient) value *= factor;
  return run;
}

/// The run without the gradients of parameters, which gather from every sequence.
inline Run without_parameters(Run run) {
  for (Input input : {Input::A_log, Input::dt_bias}) run.gradient[static_cast<std::size_t>(input)].clear();
  return run;
}

/// Rounding commutes with powers of two but for overflow and underflow; fp16's range of 2^-24 ... 2^16 is met in practice.
inline bool scales_exactly(const Contract& contract) {
  for (Format format : {contract.input, contract.output, contract.operands, contract.scores, contract.accumulate, contract.solve,
                        contract.state, contract.gradient})
    if (format == Format::fp16) return false;
  return true;
}

/// The run with every number near fp32's underflow set to zero. One operation loses at most 2^-150 to underflow (bf16
/// operands 2^-134); 2^20 terms of size up to 2^10 lift that to less than 2^-100.
inline Run without_underflow(Run run, float factor) {
  const float least = 0x1p-100f * std::max(1.0f, factor);
  for (auto* values : {&run.o, &run.final_state})
    for (float& value : *values)
      if (std::abs(value) < least) value = 0;
  for (auto& gradient : run.gradient)
    for (float& value : gradient)
      if (std::abs(value) < least) value = 0;
  return run;
}

} // namespace kdacheck
