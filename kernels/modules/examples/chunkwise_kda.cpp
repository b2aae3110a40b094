// 40 tokens in chunks of 16: the output is what earlier chunks give plus what the chunk itself gives.

#include "../chunkwise_kda.hpp"

#include <cmath>
#include <cstdio>

int main() {
  using namespace kdacheck::modules;

  constexpr std::int64_t T = 40, K = 8, V = 4, C = 16;
  std::vector<float> q(T * K), k(T * K), v(T * V), log_decay(T * K, -0.1f), beta(T, 0.5f);
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = std::cos(static_cast<float>(i)), k[i] = std::sin(static_cast<float>(3 * i)) / 2;
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = std::sin(static_cast<float>(i * i));
  const std::vector<std::int64_t> cu_seqlens{0, T};
  CoreTokens tokens{.K = K, .V = V, .scale = 0.35f, .normalise = false, .cu_seqlens = cu_seqlens, .q = q, .k = k, .v = v};
  tokens.log_decay = log_decay, tokens.beta = beta;

  const CoreResult whole = chunkwise_kda(C, tokens);
  std::vector<float> state(K * V, 0.0f); // at the start of a chunk
  bool joined = true;
  for (const ChunkParts& chunk : chunk_parts(C, tokens, 0, 0)) {
    const float o = whole.o[static_cast<std::size_t>(chunk.first * V)];
    std::printf("tokens from %2d: W_0 = %8.4f, U_0 = %8.4f\n", static_cast<int>(chunk.first), chunk.W[0], chunk.U[0]);
    std::printf("  o_00 = %8.5f = %8.5f from earlier chunks + %8.5f from this one\n", o, chunk.inter[0], chunk.intra[0]);
    joined = joined && chunk.start == state;
    state = chunk.end;
  }
  const CoreGradients d = chunkwise_kda_backward(C, tokens, whole.o, {});
  std::printf("d loss / d beta of the last token: %g\n", d.beta[T - 1]);
  return joined && state == whole.state ? 0 : 1; // chunk by chunk, to the last bit
}
