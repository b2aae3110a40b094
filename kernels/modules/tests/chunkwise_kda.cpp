// What the laws of properties/modules do not see of chunks: calls that are refused, and how the parts of a sequence join.

#include "../chunkwise_kda.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace kdacheck;
using namespace kdacheck::modules;
using Catch::Matchers::Contains;

namespace {

constexpr std::int64_t T = 40, K = 8, V = 4;

/// One sequence of one head, its numbers owned.
struct Drawn {
  std::vector<float> q, k, v, log_decay, beta;
  std::vector<std::int64_t> cu_seqlens{0, T};
  Drawn() : q(T * K), k(T * K), v(T * V), log_decay(T * K, -0.1f), beta(T, 0.5f) {
    for (std::size_t i = 0; i < q.size(); ++i) q[i] = std::cos(static_cast<float>(i)), k[i] = std::sin(static_cast<float>(3 * i)) / 2;
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = std::sin(static_cast<float>(i * i));
  }
  CoreTokens tokens() const {
    CoreTokens tokens{.K = K, .V = V, .scale = 0.35f, .normalise = false, .cu_seqlens = cu_seqlens};
    tokens.q = q, tokens.k = k, tokens.v = v, tokens.log_decay = log_decay, tokens.beta = beta;
    return tokens;
  }
};

} // namespace

TEST_CASE("chunks refuse lengths that are none of theirs, decay that grows or is no number, and heads that are not there") {
  Drawn s;
  const std::vector<float> d_o(T * V, 1.0f);
  const auto all_throw = [&](std::int64_t C, const char* what) {
    CHECK_THROWS_WITH(chunkwise_kda(C, s.tokens()), Contains(what));
    CHECK_THROWS_WITH(chunkwise_kda_backward(C, s.tokens(), d_o, {}), Contains(what));
    CHECK_THROWS_WITH(chunk_parts(C, s.tokens(), 0, 0), Contains(what));
  };
  all_throw(48, "C = 48 is none of 16, 32, 64, 128");
  for (const float growing : {1e-6f, 0.5f, std::numeric_limits<float>::quiet_NaN()}) {
    s.log_decay[17] = growing;
    all_throw(16, "at element 17; it must be at most 0");
  }
  s.log_decay[17] = 0;
  CHECK_THROWS_AS(chunk_parts(16, s.tokens(), 1, 0), std::out_of_range);
  CHECK_THROWS_AS(chunk_parts(16, s.tokens(), 0, 1), std::out_of_range);
  CoreTokens normalised = s.tokens();
  normalised.normalise = true;
  CHECK_THROWS_WITH(chunk_parts(16, normalised, 0, 0), Contains("normalise must be false"));
  CHECK_NOTHROW(chunkwise_kda(16, s.tokens()));
}

TEST_CASE("a chunk starts where the one before ended, G sums its decays, scores below and on the diagonal are all there is") {
  const Drawn s;
  std::vector<float> state(K * V, 0.0f);
  std::int64_t next = 0;
  for (const ChunkParts& part : chunk_parts(16, s.tokens(), 0, 0)) {
    CHECK(part.first == next);
    CHECK(part.n == std::min<std::int64_t>(16, T - next));
    CHECK(part.start == state);
    CHECK(part.end != part.start);
    CHECK(part.G.front() == -0.1f);
    const double sum = -0.1 * static_cast<double>(part.n); // n - 1 additions in fp32, and -0.1 itself
    CHECK(std::abs(part.G.back() - sum) <= static_cast<double>(part.n) * 0x1p-24 * std::abs(sum));
    for (std::int64_t i = 0; i < part.n; ++i)
      for (std::int64_t j = 0; j < part.n; ++j) {
        const auto at = static_cast<std::size_t>(i * part.n + j);
        if (j >= i) CHECK(part.Akk[at] == 0);
        if (j > i) CHECK(part.Aqk[at] == 0);
      }
    state = part.end, next += part.n;
  }
  CHECK(next == T);
  CHECK(state == chunkwise_kda(16, s.tokens()).state);
}
