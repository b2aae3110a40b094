// A layer of two heads: a prompt in one call, then two tokens decoded from the state it left, and one step of training.

#include "../kda_layer.hpp"

#include <cmath>
#include <cstdio>

int main() {
  using namespace kdacheck;
  using namespace kdacheck::modules;

  const KdaLayer layer{.D = 32, .H = 2, .HV = 2, .K = 16, .V = 16, .gate_rank = 16, .output_gate_rank = 16};
  const KdaLayerParameters parameters = initial_parameters(layer, 2026);
  const Kernel& kernel = built_in_kernels()[0]; // any other does as well

  constexpr std::int64_t T = 12, prompt = 10;
  std::vector<float> x(static_cast<std::size_t>(T * layer.D));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  const std::span<const float> tokens(x);
  const KdaLayerOutput whole = kda_layer(layer, parameters, kernel, {.B = 1, .T = T, .x = tokens});

  KdaLayerOutput part =
      kda_layer(layer, parameters, kernel, {.B = 1, .T = prompt, .x = tokens.first(static_cast<std::size_t>(prompt * layer.D))});
  for (std::int64_t t = prompt; t < T; ++t)
    part = kda_layer(layer, parameters, kernel,
                     {.B = 1, .T = 1, .x = tokens.subspan(static_cast<std::size_t>(t * layer.D), static_cast<std::size_t>(layer.D))},
                     part.final_state);
  const float decoded = part.y[0], prefilled = whole.y[static_cast<std::size_t>((T - 1) * layer.D)];

  const KdaLayerGradients d =
      kda_layer_backward(layer, parameters, kernel, {.B = 1, .T = T, .x = tokens}, {}, {.y = whole.y, .final_state = {}});
  std::printf("last token: prefilled %.7f, decoded %.7f; d loss / d A_log of head 0: %g\n", prefilled, decoded, d.parameters.A_log[0]);
  return decoded == prefilled ? 0 : 1; // token by token the kernel does the same either way
}
