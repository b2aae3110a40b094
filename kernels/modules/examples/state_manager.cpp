// Twenty tokens through a batch of states with a checkpoint every eight; then back to the first one.

#include "../state_manager.hpp"

#include <cmath>
#include <cstdio>

int main() {
  using namespace kdacheck::modules;

  const StateShape shape{.B = 2, .H = 2, .K = 4, .V = 3};
  StateManager manager({.largest = shape, .checkpoint_interval = 8, .checkpoints_kept = 10, .folder = {}});

  constexpr std::int64_t T = 20;
  const std::size_t heads = static_cast<std::size_t>(shape.B * shape.H * T);
  std::vector<float> alpha(heads * 4, 0.95f), k(heads * 4, 0.5f), beta(heads, 0.5f), v(heads * 3, 1.0f);
  v[5 * 2 * 3] = std::nanf(""); // token 5 of head 0 of the first sequence
  const auto faults = manager.update({.B = 2, .T = T, .alpha = alpha, .k = k, .beta = beta, .v = v});

  manager.restore(8);
  const StateMemory memory = manager.memory();
  std::printf("%zu repair(s), step %lld, %zu bytes in all, %zu of them states\n", faults.size(), static_cast<long long>(manager.step()),
              memory.total(), memory.states);
  return faults.size() == 1 && faults[0].step == 5 && manager.restored_count() == 1 && manager.step() == 8 ? 0 : 1;
}
