// Decay gates of a layer of 4 heads with 32 channels, and how the loss  sum of alpha  changes with the input.

#include "../gating.hpp"

#include <algorithm>
#include <cstdio>

int main() {
  using namespace kdacheck;
  using namespace kdacheck::modules;

  const Gating module{.D = 64, .rank = 16, .H = 4, .K = 32, .form = GateForm::softplus};
  GatingParameters parameters = xavier_parameters(module, 2024);
  parameters.A_log.assign(4, -1.0f); // slower forgetting

  constexpr std::int64_t B = 2, T = 8;
  std::vector<float> x(static_cast<std::size_t>(B * T * module.D), 0.25f);
  const GatingInput input{.B = B, .T = T, .x = x};
  std::vector<float> alpha(static_cast<std::size_t>(B * T * module.width())), log_decay(alpha.size());
  gates(module, parameters, input, {.alpha = alpha, .log_decay = log_decay});

  const std::vector<float> ones(alpha.size(), 1.0f);
  const GatingGradients gradients = gates_backward(module, parameters, input, {.alpha = ones, .log_decay = {}});

  const auto [least, most] = std::ranges::minmax(alpha);
  std::printf("alpha in [%g, %g], d loss / d A_log of head 0: %g\n", least, most, gradients.A_log[0]);
  return 0 <= least && most <= 1 && gradients.A_log[0] < 0 ? 0 : 1; // a larger rate forgets more
}
