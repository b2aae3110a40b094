#include "../recipe.hpp"

#include <catch2/catch.hpp>

#include <bit>
#include <cmath>
#include <thread>

using namespace kdacheck;

namespace {

constexpr InputFormats fp32{};
constexpr InputFormats bf16{Format::bf16, Format::bf16, Format::bf16};

/// FNV-1a over the bits of every tensor.
std::uint64_t fingerprint(const Problem& p) {
  std::uint64_t hash = 14695981039346656037u;
  const auto add = [&](std::uint64_t word) { hash = (hash ^ word) * 1099511628211u; };
  const auto tensor = [&](const std::vector<float>& values) {
    add(values.size());
    for (float x : values) add(std::bit_cast<std::uint32_t>(x));
  };
  for (Input input : all_inputs) tensor(p[input]);
  tensor(p.d_o);
  tensor(p.d_final_state);
  for (std::int64_t end : p.cu_seqlens) add(static_cast<std::uint64_t>(end));
  return hash;
}

Recipe drawn(const char* regime, std::uint64_t seed = 0) { return regime_named(regime)->draw(seed, Tier::quick); }

/// Elements of the first `length` tokens of a tensor [1,T,...].
std::vector<float> first_tokens(const std::vector<float>& values, std::int64_t T, std::int64_t length) {
  return {values.begin(), values.begin() + std::ssize(values) / T * length};
}

} // namespace

TEST_CASE("the bits of a recipe's tensors are those of the day they were pinned") {
  // A change here changes every golden tensor and every replay token's meaning: raise the token's version with it.
  struct Pin {
    const char* regime;
    std::uint64_t seed;
    InputFormats formats;
    std::uint64_t expected;
  };
  const Pin pins[] = {
      {"gaussian-keys", 0, fp32, 0},    {"near-identical-keys", 1, bf16, 0}, {"converged-memory", 0, bf16, 0},
      {"trained-gates", 2, fp32, 0},    {"bounded-gate", 1, bf16, 0},        {"packed", 3, bf16, 0},
      {"exact-walsh-keys", 0, bf16, 0}, {"dplr-rwkv7", 0, fp32, 0},          {"warm-chunk", 1, fp32, 0},
      {"anything", 12345, fp32, 0},     {"mixed-decay", 9, fp32, 0},         {"beta-logits", 3, bf16, 0},
  };
  for (const Pin& pin : pins) {
    const std::uint64_t now = fingerprint(make_problem(drawn(pin.regime, pin.seed), pin.formats));
    CAPTURE(pin.regime, pin.seed);
    CHECK(now == pin.expected);
  }
}

TEST_CASE("threads and order do not change a bit") {
  const std::vector<const char*> names{"gaussian-keys", "converged-memory", "packed", "trained-gates", "dplr-rwkv7", "exact-unit-keys"};
  std::vector<std::uint64_t> alone, together(names.size());
  for (const char* name : names) alone.push_back(fingerprint(make_problem(drawn(name, 1), bf16)));
  std::vector<std::thread> threads;
  for (std::size_t i = names.size(); i-- > 0;)
    threads.emplace_back([&, i] {
      for (int again = 0; again < 3; ++again) together[i] = fingerprint(make_problem(drawn(names[i], 1), bf16));
    });
  for (auto& thread : threads) thread.join();
  CHECK(alone == together);
}

TEST_CASE("every stored number is a number of its format") {
  for (const Regime& regime : regimes())
    for (const InputFormats& formats :
         {bf16, InputFormats{Format::fp16, Format::fp16, Format::fp16}, InputFormats{Format::bf16, Format::fp32, Format::fp16}}) {
      const Problem p = make_problem(regime.draw(1, Tier::quick), formats);
      INFO(regime.name);
      CHECK(malformed(p).value_or("") == "");
      for (Input input : all_inputs)
        for (float x : p[input]) REQUIRE((round_to(format_of(input, formats), x) == x || std::isinf(x)));
      for (float x : p.d_o) REQUIRE((round_bf16(x) == x && round_fp16(x) == x));
    }
}

TEST_CASE("a longer sequence, more heads or more sequences begin with the same tensors") {
  for (const char* name :
       {"gaussian-keys", "near-identical-keys", "converged-memory", "mixed-decay", "published-init", "exact-unit-keys", "dplr-rwkv7"}) {
    Recipe longer = drawn(name);
    longer.shape = {1, 50, 2, 2, 16, 8};
    Recipe shorter = longer;
    shorter.shape.T = 20;
    const Problem p = make_problem(longer, fp32), q = make_problem(shorter, fp32);
    INFO(name);
    for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::a, Input::b})
      if (!p[input].empty()) CHECK(first_tokens(p[input], 50, 20) == q[input]);
    CHECK(p.initial_state == q.initial_state);

    Recipe fewer = shorter;
    fewer.shape.H = fewer.shape.HV = 1;
    const Problem one = make_problem(fewer, fp32);
    for (std::size_t t = 0; t < 20; ++t)
      for (std::size_t c = 0; c < 16; ++c) REQUIRE(one.k[t * 16 + c] == q.k[t * 32 + c]);
    for (std::size_t t = 0; t < 20; ++t)
      for (std::size_t c = 0; c < 8; ++c) REQUIRE(one.v[t * 8 + c] == q.v[t * 16 + c]);
  }
}

TEST_CASE("packed members hold the same tokens as sequences of their own") {
  Recipe packed = drawn("gaussian-keys");
  packed.shape = {1, 24, 1, 2, 8, 4};
  packed.lengths = {8, 8, 8};
  Recipe batch = packed;
  batch.lengths.clear();
  batch.shape.B = 3;
  batch.shape.T = 8;
  const Problem p = make_problem(packed, fp32), q = make_problem(batch, fp32);
  for (Input input : all_inputs) CHECK(p[input] == q[input]);
  CHECK(p.d_o == q.d_o);
  CHECK(p.d_final_state == q.d_final_state);
}

TEST_CASE("seeds, and heads and tokens under one seed, differ") {
  const Problem p = make_problem(drawn("gaussian-keys", 0), fp32);
  Recipe other = drawn("gaussian-keys", 0);
  other.seed = 1;
  CHECK(fingerprint(p) != fingerprint(make_problem(other, fp32)));
  const auto K = static_cast<std::size_t>(p.shape.K);
  CHECK(std::vector<float>(p.k.begin(), p.k.begin() + static_cast<std::ptrdiff_t>(K)) !=
        std::vector<float>(p.k.begin() + static_cast<std::ptrdiff_t>(K), p.k.begin() + static_cast<std::ptrdiff_t>(2 * K)));
  CHECK(p.q[0] != p.k[0]);
}

TEST_CASE("converged values are what the memory holds, but for the residual") {
  for (const InputFormats& formats : {fp32, bf16}) {
    Recipe recipe = drawn("converged-memory");
    recipe.residual = 0x1p-6f;
    const Problem p = make_problem(recipe, formats);
    const Shape& s = p.shape;
    double residual = 0, size = 0;
    const auto V = static_cast<std::size_t>(s.V), K = static_cast<std::size_t>(s.K);
    std::vector<double> S(p.initial_state.begin(), p.initial_state.begin() + static_cast<std::ptrdiff_t>(K * V)); // head 0
    for (std::int64_t t = 0; t < s.T; ++t) {
      const auto key = static_cast<std::size_t>(t * s.H) * K, gate = static_cast<std::size_t>(t * s.HV) * K,
                 at = static_cast<std::size_t>(t * s.HV);
      for (std::size_t j = 0; j < V; ++j) {
        double read = 0;
        for (std::size_t i = 0; i < K; ++i) read += p.k[key + i] * (S[i * V + j] *= std::exp(p.g[gate + i]));
        const double v = p.v[at * V + j];
        residual += (v - read) * (v - read);
        size += v * v;
        for (std::size_t i = 0; i < K; ++i) S[i * V + j] += p.beta[at] * p.k[key + i] * (v - read);
      }
    }
    const double count = static_cast<double>(s.T) * static_cast<double>(s.V);
    const double noise = std::sqrt(residual / count), held = std::sqrt(size / count);
    // The residual's own rms, plus what rounding v to its format adds.
    CHECK(noise > 0.9 * 0x1p-6);
    CHECK(noise < 1.1 * 0x1p-6 + 2 * unit_roundoff(formats.qkv) * held);
    CHECK(held > 20 * noise);
  }
}

TEST_CASE("a warm state is one that the same traffic leaves, whatever the stored formats") {
  const Recipe recipe = drawn("warm-chunk");
  const Problem p = make_problem(recipe, fp32);
  CHECK(p.initial_state == make_problem(recipe, bf16).initial_state);
  double square = 0;
  for (float x : p.initial_state) square += static_cast<double>(x) * x;
  CHECK(square > 0);
  // Values have unit variance and keys unit length: a memory of up to 64 of them holds at most that much.
  CHECK(square < 64.0 * static_cast<double>(p.shape.V * p.shape.HV * sequence_count(p)) * 1.5);
}
