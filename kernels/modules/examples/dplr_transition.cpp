// One token's update of a state, and a monitor that proves whether the transition can make anything grow.

#include "../dplr_transition.hpp"
#include "../spectral_monitor.hpp"

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  using namespace kdacheck::modules;

  const StateShape shape{.B = 1, .H = 1, .K = 4, .V = 2};
  std::vector<float> state(static_cast<std::size_t>(shape.elements()), 1.0f);
  const std::vector<float> alpha(4, 0.9f), k{0.5f, 0.5f, 0.5f, 0.5f}, beta{1.0f}, v{3.0f, -2.0f};
  const KdaStep token{.alpha = alpha, .k = k, .beta = beta, .v = v};

  SpectralMonitor monitor(shape, 16);
  monitor.observe(token);
  update(shape, token, state);

  float read_back = 0; // with beta = 1 and |k| = 1 the key now reads v
  for (std::size_t i = 0; i < 4; ++i) read_back += k[i] * state[i * 2];
  const MonitorCounts& counts = monitor.counts();
  std::printf("the key reads %g; norm at most %g, the heuristic gave %lld false alarm(s)\n", read_back, counts.largest_norm,
              static_cast<long long>(counts.false_alarms));
  return std::fabs(read_back - 3.0f) < 1e-5f && counts.proved_within == 1 && counts.false_alarms == 1 ? 0 : 1;
}
