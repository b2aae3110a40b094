// Eight layers, three KDA to one MLA: a prompt and a decoded token, and the memory of the state against MLA in every layer.

#include "../hybrid.hpp"

#include <cmath>
#include <cstdio>

int main() {
  using namespace kdacheck;
  using namespace kdacheck::modules;

  HybridStack stack{.pattern = hybrid_pattern(8),
                    .kda = {.D = 32, .H = 2, .HV = 2, .K = 16, .V = 16, .gate_rank = 8, .output_gate_rank = 8},
                    .mla = {.D = 32, .H = 2, .K = 16, .V = 16, .K_shared = 8, .rank = 24}};
  HybridStack full = stack;
  full.pattern = hybrid_pattern(8, 0);
  const HybridParameters parameters = initial_parameters(stack, 2026), of_full = initial_parameters(full, 2026);
  const Kernel& kernel = built_in_kernels()[0];

  std::printf("tokens   3:1 bytes  full bytes   saved\n");
  for (const std::int64_t T : {16, 128, 1024, 4096}) {
    std::vector<float> x(static_cast<std::size_t>(T * stack.D()));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
    HybridState state, all;
    std::vector<float> y = hybrid(stack, parameters, kernel, {.B = 1, .T = T, .x = x}, state);
    hybrid(full, of_full, kernel, {.B = 1, .T = T, .x = x}, all);
    const auto bytes = static_cast<double>(state.bytes()), full_bytes = static_cast<double>(all.bytes());
    std::printf("%6lld  %10.0f  %10.0f  %5.1f %%\n", static_cast<long long>(T), bytes, full_bytes, 100 * (1 - bytes / full_bytes));
    y = hybrid(stack, parameters, kernel, {.B = 1, .T = 1, .x = std::span<const float>(y).last(32)}, state); // decode
    if (!std::isfinite(y[0]) || state.layers[3].mla.tokens(stack.mla, 0) != T + 1) return 1;
    if (T == 4096 && !(bytes < 0.27 * full_bytes)) return 1;
  }
}
