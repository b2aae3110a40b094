// Latent attention of two heads: a prompt in one call, then two tokens decoded through the cache, and one step of training.

#include "../mla.hpp"

#include <cmath>
#include <cstdio>

int main() {
  using namespace kdacheck::modules;

  const Mla layer{.D = 32, .H = 2, .K = 16, .V = 16, .K_shared = 8, .rank = 12, .absorb = false};
  const MlaParameters parameters = initial_parameters(layer, 2026);

  constexpr std::int64_t T = 12, prompt = 10;
  std::vector<float> x(static_cast<std::size_t>(T * layer.D));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  const std::span<const float> tokens(x);
  MlaCache whole, cache;
  const std::vector<float> y = mla(layer, parameters, {.B = 1, .T = T, .x = tokens}, whole);

  mla(layer, parameters, {.B = 1, .T = prompt, .x = tokens.first(static_cast<std::size_t>(prompt * layer.D))}, cache);
  std::vector<float> last;
  for (std::int64_t t = prompt; t < T; ++t)
    last = mla(layer, parameters,
               {.B = 1, .T = 1, .x = tokens.subspan(static_cast<std::size_t>(t * layer.D), static_cast<std::size_t>(layer.D))}, cache);
  const float decoded = last[0], prefilled = y[static_cast<std::size_t>((T - 1) * layer.D)];

  const MlaGradients d = mla_backward(layer, parameters, {.B = 1, .T = T, .x = tokens}, {}, {.y = y, .cache = {}});
  std::printf("last token: prefilled %.7f, decoded %.7f; cached of %lld tokens: %lld of %lld numbers; d loss / d kv_norm[0]: %g\n",
              prefilled, decoded, static_cast<long long>(cache.tokens(layer, 0)), static_cast<long long>(cache.rows[0].size()),
              static_cast<long long>(T * layer.H * (layer.K + layer.K_shared + layer.V)), d.parameters.kv_norm[0]);
  return decoded == prefilled ? 0 : 1; // without absorption the same bits either way
}
