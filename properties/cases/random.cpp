// Compiled with -O3 and -fno-math-errno (CMakeLists.txt), so that loops over a batch become vector code; neither changes
// a bit.

#include "random.hpp"

namespace kdacheck {
namespace {

constexpr std::size_t batch = 32;

/// Box-Muller: x[2i], x[2i+1] from a radius of u[2i] and an angle of u[2i+1], all in (0, 1).
void gaussians_of(const double* u, double* x) {
  double radius[batch / 2], cosine[batch / 2], sine[batch / 2];
  for (std::size_t i = 0; i < batch / 2; ++i) radius[i] = std::sqrt(-2.0 * portable::log_of_normal(u[2 * i]));
  for (std::size_t i = 0; i < batch / 2; ++i) {
    const auto turn = portable::cos_sin_turns(u[2 * i + 1]);
    cosine[i] = turn.cosine;
    sine[i] = turn.sine;
  }
  for (std::size_t i = 0; i < batch / 2; ++i) {
    x[2 * i] = radius[i] * cosine[i];
    x[2 * i + 1] = radius[i] * sine[i];
  }
}

} // namespace

void Stream::fill_uniform(std::span<double> x) const {
  for (std::size_t i = 0; i < x.size(); i += 4) {
    const auto r = block(static_cast<std::uint32_t>(i / 4));
    for (std::size_t j = 0; j < 4 && i + j < x.size(); ++j) x[i + j] = centre(r[j]);
  }
}

void Stream::fill_gaussian(std::span<double> x) const {
  double u[batch], values[batch];
  for (std::size_t first = 0; first < x.size(); first += batch) {
    for (std::size_t b = 0; b < batch / 4; ++b) {
      const auto r = block(static_cast<std::uint32_t>(first / 4 + b));
      for (std::size_t j = 0; j < 4; ++j) u[4 * b + j] = centre(r[j]);
    }
    const std::size_t wanted = x.size() - first;
    if (wanted >= batch) {
      gaussians_of(u, x.data() + first);
    } else {
      gaussians_of(u, values);
      for (std::size_t j = 0; j < wanted; ++j) x[first + j] = values[j];
    }
  }
}

double Stream::gaussian(std::uint32_t i) const {
  double u[batch], values[batch];
  const auto r = block(i / 4);
  for (std::size_t j = 0; j < batch; ++j) u[j] = centre(r[j % 4]);
  gaussians_of(u, values);
  return values[i % 4];
}

} // namespace kdacheck
