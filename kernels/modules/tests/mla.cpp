// What the laws of properties/modules do not see: the cache's bytes, bits of prefill and decode, calls that are refused.

#include "../mla.hpp"
#include "../causal_attention.hpp"
#include "bits.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace kdacheck::modules;
using Catch::Matchers::Contains;

namespace {

const Mla layer{.D = 24, .H = 4, .K = 16, .V = 16, .K_shared = 8, .rank = 20};

std::vector<float> wave(std::int64_t count) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(0.7f * static_cast<float>(i * i % 101));
  return x;
}

} // namespace

TEST_CASE("without absorption prefill and decode through the cache give the same bits, with it the same cache") {
  constexpr std::int64_t T = 75;
  Mla layer = ::layer;
  layer.absorb = false;
  const MlaParameters p = initial_parameters(layer, 3);
  const std::vector<float> x = wave(T * layer.D);
  MlaCache whole, cache;
  const std::vector<float> y = mla(layer, p, {.B = 1, .T = T, .x = x}, whole);
  std::vector<float> decoded;
  for (std::int64_t t = 0; t < T; ++t) {
    const auto token = std::span<const float>(x).subspan(static_cast<std::size_t>(t * layer.D), static_cast<std::size_t>(layer.D));
    const std::vector<float> row = mla(layer, p, {.B = 1, .T = 1, .x = token}, cache);
    decoded.insert(decoded.end(), row.begin(), row.end());
  }
  CHECK(decoded == y);
  CHECK(cache.rows == whole.rows);
  layer.absorb = true;
  MlaCache absorbed;
  bool differs = false; // or nothing was absorbed
  for (std::int64_t t = 0; t < T; ++t) {
    const auto token = std::span<const float>(x).subspan(static_cast<std::size_t>(t * layer.D), static_cast<std::size_t>(layer.D));
    const std::vector<float> row = mla(layer, p, {.B = 1, .T = 1, .x = token}, absorbed);
    differs = differs || !std::equal(row.begin(), row.end(), y.begin() + t * layer.D);
  }
  CHECK(differs);
  CHECK(absorbed.rows == whole.rows);
}

TEST_CASE("initial parameters of MLA are the same bits on every machine and fill their intervals") {
  MlaParameters p = initial_parameters(layer, 3);
  std::uint64_t bits = bits_of({});
  for_each_tensor(layer, p, [&](std::string_view, std::span<const std::int64_t> shape, std::vector<float>& values) {
    bits = bits_of(values, bits);
    if (shape.size() == 1) return; // the norm
    const auto limit = static_cast<float>(std::sqrt(6.0 / static_cast<double>(shape[0] + shape[1])));
    const auto [least, most] = std::ranges::minmax(values);
    CHECK((-limit <= least && least < -0.97f * limit && 0.97f * limit < most && most <= limit));
  });
  CHECK(bits == 0x6a17addcebbc8310);
  CHECK(std::ranges::all_of(p.kv_norm, [](float w) { return w == 1.0f; }));
}

TEST_CASE("a prefilled cache allocates rank + K_shared numbers per token, a decoded one at most an eighth and a page more") {
  const MlaParameters p = initial_parameters(layer, 3);
  MlaCache prefilled, decoded;
  constexpr std::int64_t T = 1000;
  const std::vector<float> x = wave(T * layer.D);
  mla(layer, p, {.B = 1, .T = T, .x = x}, prefilled);
  CHECK(prefilled.bytes() == T * 28 * 4);
  for (std::int64_t t = 0; t < 300; ++t)
    mla(layer, p, {.B = 1, .T = 1, .x = std::span<const float>(x).first(static_cast<std::size_t>(layer.D))}, decoded);
  CHECK(decoded.tokens(layer, 0) == 300);
  CHECK(decoded.bytes() >= 300 * 28 * 4);
  CHECK(decoded.bytes() <= (300 + 300 / 8 + 64) * 28 * 4);
}

TEST_CASE("an infinite value behind a token is not read by it") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> q{1, 2, 3}, k{0.5f, 0.25f, infinity}, v{1, 2, infinity}, d_o{1, 1, 0};
  const HeadAttention a{.past = 0, .rows = 3, .K = 1, .V = 1, .scale = 1, .q = q, .k = k, .v = v};
  const std::vector<float> o = causal_attention(a);
  CHECK(o[0] == 1.0f);
  CHECK((o[1] > 1 && o[1] < 2));
  CHECK(!(std::fabs(o[2]) < infinity));
  const HeadAttentionGradients d = causal_attention_backward(a, d_o);
  CHECK(d.q[0] == 0.0f);
  CHECK(std::isfinite(d.q[1]));
}

TEST_CASE("a call of MLA that does not fit is refused with a sentence that names the tensor, the cache unchanged") {
  MlaParameters p = initial_parameters(layer, 5);
  std::vector<float> x = wave(3 * layer.D);
  MlaCache cache;
  const auto call = [&](MlaInput input) { return mla(layer, p, input, cache); };
  CHECK_THROWS_WITH(call({.B = 1, .T = 4, .x = x}), Contains("x has 72 numbers") && Contains("[B,T,D] needs 96"));
  const std::vector<std::int64_t> falling{0, 2, 1, 3};
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x, .cu_seqlens = falling}), Contains("cu_seqlens must rise"));
  cache.rows = {{1, 2}};
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x}), Contains("cache of sequence 0 has 2 numbers"));
  cache.rows = {{}, {}};
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x}), Contains("the cache holds 2 sequences, the call 1"));
  cache.rows = {};
  CHECK_THROWS_WITH(mla_backward(layer, p, {.B = 1, .T = 3, .x = x}, cache, {.y = {}, .cache = {{1}}}),
                    Contains("cotangent of the cache of sequence 0 has 1 numbers, not 84"));
  x[5] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x}), Contains("x holds nan at element 5"));
  p.kv_norm.pop_back();
  x[5] = 0;
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x}), Contains("kv_norm has 19 numbers, its shape needs 20"));
  CHECK(cache.rows.empty());
  Mla odd = layer;
  odd.rank = 0;
  CHECK_THROWS_WITH(initial_parameters(odd, 1), Contains("rank = 0 must be positive"));
}
