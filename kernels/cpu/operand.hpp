#pragma once
// Rounding of matrix operands to the format that a contract declares.

#include "../../reference/number_format.hpp"

#include <cstdint>

namespace kdacheck::cpu {

struct OperandFormat {
  Format format = Format::fp32;
  bool truncate = false; ///< tf32 by dropping bits
};

/// Rounds `count` numbers in place. fp16 operands carry one power-of-two scale for all of them, so that their range is
/// never left; the products are then exact multiples of those of the scaled operands.
void round_operand(OperandFormat, float* numbers, std::int64_t count);

/// round_operand for each of `rows` rows, with a scale of its own.
void round_rows(OperandFormat, float* numbers, std::int64_t rows, std::int64_t width);

/// The numbers rounded as one operand into `copy`; the numbers themselves, and no copy, where fp32 leaves nothing to round.
const float* rounded_copy(OperandFormat, const float* numbers, std::int64_t count, float* copy);

} // namespace kdacheck::cpu
