#pragma once
// Random numbers that depend on where they are used, not on when: each (seed, tensor, head, sequence, token) has a
// stream of its own (Philox4x32-10 of Random123, counter-based), so no order of evaluation and no number of threads can
// change a bit, and a longer, wider or larger problem starts with the tensors of the smaller one.
// Only + - * / and sqrt touch the bits: the same on every machine.

#include "portable_math.hpp"

#include <Random123/philox.h>

#include <array>
#include <cstdint>
#include <span>

namespace kdacheck {

/// Where draws are used. Numbers are part of the bits of every recipe: append, never reorder.
enum class Draw : std::uint8_t {
  query,
  key,
  value,
  gate,
  beta,
  gate_gain,
  gate_bias,
  channel_rate,
  key_base,
  query_base,
  key_index,
  query_index,
  value_base,
  residual,
  state,
  cotangent_o,
  cotangent_state,
  cotangent_place,
  dplr_a,
  dplr_b,
  dplr_rate,
  recipe,
};

/// One stream: a value that is cheap to make and copy. Element i is the same whichever others were drawn.
class Stream {
public:
  Stream(std::uint64_t seed, Draw draw, std::uint32_t head = 0, std::uint32_t sequence = 0, std::uint32_t token = 0)
      : key_{{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}},
        counter_{{static_cast<std::uint32_t>(draw) << 24, head, sequence, token}} {}

  /// 32 random bits.
  std::uint32_t bits(std::uint32_t i) const { return block(i / 4)[i % 4]; }

  /// In (0, 1): the centre of one of 2^32 equal intervals.
  double uniform(std::uint32_t i) const { return centre(bits(i)); }

  /// Standard normal (Box-Muller); |x| < 6.7.
  double gaussian(std::uint32_t i) const;

  /// An integer in [0, n), n at least 1; the bias is below n 2^-32.
  std::uint32_t below(std::uint32_t n, std::uint32_t i) const {
    return static_cast<std::uint32_t>((static_cast<std::uint64_t>(bits(i)) * n) >> 32);
  }

  /// Elements 0, 1, 2, ... of the stream.
  void fill_uniform(std::span<double>) const;
  void fill_gaussian(std::span<double>) const;

private:
  static double centre(std::uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }

  std::array<std::uint32_t, 4> block(std::uint32_t index) const {
    r123::Philox4x32::ctr_type counter = counter_;
    counter[0] |= index;
    const auto r = r123::Philox4x32{}(counter, key_);
    return {r[0], r[1], r[2], r[3]};
  }

  r123::Philox4x32::key_type key_;
  r123::Philox4x32::ctr_type counter_;
};

} // namespace kdacheck
