#pragma once
// Decays inside a chunk. Every exponent is at most 0: rows decay from the chunk's start or to its end, never backwards.

#include <cstdint>

namespace kdacheck::cpu {

/// Log decays [n, width] to their running sums in place.
void running_sums(float* g, std::int64_t n, std::int64_t width);

/// to[i] = sums[i - 1], zero for i = 0: what has decayed before token i.
void sums_before(const float* sums, std::int64_t n, std::int64_t width, float* to);

/// to = x e^sums.
void decay_from_start(const float* x, const float* sums, std::int64_t n, std::int64_t width, float* to);

/// to[i] = x[i] e^{sums[n - 1] - sums[i]}.
void decay_to_end(const float* x, const float* sums, std::int64_t n, std::int64_t width, float* to);

/// to[c, :] = e^{last[c]} from[c, :] for a state [K, V]; may be in place.
void decay_state(const float* last, std::int64_t K, std::int64_t V, const float* from, float* to);

} // namespace kdacheck::cpu
