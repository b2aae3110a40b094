#include "decay.hpp"

#include "lanes.hpp"

#include <algorithm>

namespace kdacheck::cpu {

void running_sums(float* g, std::int64_t n, std::int64_t width) {
  for (std::int64_t at = width; at < n * width; at += lane_count) store(g + at, load(g + at) + load(g + at - width));
}

void sums_before(const float* sums, std::int64_t n, std::int64_t width, float* to) {
  std::fill(to, to + std::min<std::int64_t>(n, 1) * width, 0.0f);
  if (n > 1) std::copy(sums, sums + (n - 1) * width, to + width);
}

void decay_from_start(const float* x, const float* sums, std::int64_t n, std::int64_t width, float* to) {
  for (std::int64_t at = 0; at < n * width; at += lane_count) store(to + at, load(x + at) * exp_of(load(sums + at)));
}

void decay_to_end(const float* x, const float* sums, std::int64_t n, std::int64_t width, float* to) {
  const float* last = sums + (n - 1) * width;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t c = 0; c < width; c += lane_count) {
      const std::int64_t at = i * width + c;
      store(to + at, load(x + at) * exp_of(load(last + c) - load(sums + at)));
    }
}

void decay_state(const float* last, std::int64_t K, std::int64_t V, const float* from, float* to) {
  for (std::int64_t c = 0; c < K; c += lane_count) {
    float decay[lane_count];
    store(decay, exp_of(load(last + c)));
    for (std::int64_t lane = 0; lane < lane_count; ++lane)
      for (std::int64_t at = (c + lane) * V; at < (c + lane + 1) * V; at += lane_count)
        store(to + at, broadcast(decay[lane]) * load(from + at));
  }
}

} // namespace kdacheck::cpu
