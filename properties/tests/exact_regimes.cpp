// The exact regimes against every built-in kernel: whatever its formats, its bits must be those of exact arithmetic.

#include "../cases/recipe.hpp"
#include "../run.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>

using namespace kdacheck;

namespace {

/// The recurrence in fp64, which has room for every bit of these regimes, and the most significand bits that any number
/// a kernel may have to store in a low-precision format (state, residual, output) takes.
struct Exact {
  std::vector<double> o, final_state;
  int bits = 0;
};

int significand_bits(double x) {
  if (x == 0) return 0;
  int exponent = 0, bits = 0;
  for (double fraction = std::frexp(x, &exponent); fraction != 0; ++bits) {
    fraction *= 2;
    fraction -= std::trunc(fraction);
  }
  return bits;
}

Exact exact_run(const Problem& p) {
  const Shape& s = p.shape;
  Exact result;
  result.o.resize(p.v.size());
  result.final_state.resize(static_cast<std::size_t>(sequence_count(p) * s.HV * s.K * s.V));
  const auto note = [&](double x) {
    result.bits = std::max(result.bits, significand_bits(x));
    return x;
  };
  for (const Sequence& sequence : sequences(p))
    for (std::int64_t head = 0; head < s.HV; ++head)
      for (std::int64_t column = 0; column < s.V; ++column) {
        std::vector<double> S(static_cast<std::size_t>(s.K));
        const auto place = [&](std::int64_t i) {
          return static_cast<std::size_t>(((sequence.index * s.HV + head) * s.K + i) * s.V + column);
        };
        for (std::int64_t i = 0; i < s.K; ++i)
          S[static_cast<std::size_t>(i)] = p.initial_state.empty() ? 0 : note(p.initial_state[place(i)]);
        for (std::int64_t row = sequence.first; row < sequence.first + sequence.length; ++row) {
          const auto key = static_cast<std::size_t>((row * s.H + head / (s.HV / s.H)) * s.K),
                     at = static_cast<std::size_t>(row * s.HV + head);
          double read = 0, out = 0;
          for (std::size_t i = 0; i < S.size(); ++i) read += p.k[key + i] * S[i];
          const double update = note(p.beta[at] * note(p.v[at * static_cast<std::size_t>(s.V) + static_cast<std::size_t>(column)] - read));
          for (std::size_t i = 0; i < S.size(); ++i) S[i] = note(S[i] + p.k[key + i] * update);
          for (std::size_t i = 0; i < S.size(); ++i) out += p.options.scale * p.q[key + i] * S[i];
          result.o[at * static_cast<std::size_t>(s.V) + static_cast<std::size_t>(column)] = note(out);
        }
        for (std::int64_t i = 0; i < s.K; ++i) result.final_state[place(i)] = S[static_cast<std::size_t>(i)];
      }
  return result;
}

bool no_decay(const Problem& p) {
  return std::all_of(p.g.begin(), p.g.end(), [](float x) { return x == 0; });
}

} // namespace

TEST_CASE("exact regimes never need more than the eight bits of bf16, however long they run") {
  for (const char* name : {"exact-unit-keys", "exact-overwrites", "exact-walsh-keys", "exact-repeated-key"}) {
    int most = 0;
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      const Recipe recipe = regime_named(name)->draw(seed, Tier::quick);
      const Problem p = make_problem(recipe, {Format::bf16, Format::bf16, Format::bf16});
      INFO(to_token(recipe));
      REQUIRE(no_decay(p));
      const Exact exact = exact_run(p);
      most = std::max(most, exact.bits);
      CHECK(exact.bits <= 8);
    }
    for (std::uint64_t seed = 0; seed < 3; ++seed) { // thousands of tokens, a few columns
      Recipe recipe = regime_named(name)->draw(seed, Tier::quick);
      recipe.shape = {1, 3000, 1, 1, 64, 4};
      INFO(to_token(recipe));
      const Exact exact = exact_run(make_problem(recipe, {Format::bf16, Format::bf16, Format::bf16}));
      CHECK(exact.bits <= 8);
    }
    CHECK(most >= 3); // or nothing was computed
  }
}

TEST_CASE("every built-in kernel gives the exact bits in the exact regimes") {
  std::size_t ran = 0;
  for (const Kernel& kernel : built_in_kernels())
    for (const char* name : {"exact-unit-keys", "exact-overwrites", "exact-walsh-keys", "exact-repeated-key"})
      for (std::uint64_t seed = 0; seed < 8; ++seed) {
        const Recipe recipe = fitted(regime_named(name)->draw(seed, Tier::quick), kernel.contract);
        const Problem p = make_problem(recipe, input_formats(kernel.contract));
        if (outside_domain(kernel.contract, p) || recipe.options.rule == Rule::dplr || recipe.options.l2norm || !no_decay(p)) continue;
        INFO(kernel.name << " " << to_token(recipe));
        const Run run = run_forward(kernel, p);
        const Exact exact = exact_run(p);
        CHECK(exact.bits <= 8);
        REQUIRE(run.o.size() == exact.o.size());
        REQUIRE(run.final_state.size() == exact.final_state.size());
        CHECK(std::equal(run.o.begin(), run.o.end(), exact.o.begin()));
        CHECK(std::equal(run.final_state.begin(), run.final_state.end(), exact.final_state.begin()));
        ++ran;
      }
  CHECK(ran > 0);
}

TEST_CASE("every built-in kernel that carries an fp32 state forms the exact residual, which bf16 would lose") {
  std::size_t ran = 0;
  for (const Kernel& kernel : built_in_kernels())
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      const Recipe recipe = fitted(regime_named("exact-residual")->draw(seed, Tier::quick), kernel.contract);
      const Problem p = make_problem(recipe, input_formats(kernel.contract));
      if (kernel.contract.state != Format::fp32 || outside_domain(kernel.contract, p) || recipe.options.rule == Rule::dplr ||
          recipe.options.l2norm)
        continue;
      INFO(kernel.name << " " << to_token(recipe));
      const Run run = run_forward(kernel, p);
      const Exact exact = exact_run(p);
      CHECK(std::equal(run.o.begin(), run.o.end(), exact.o.begin()));
      CHECK(std::equal(run.final_state.begin(), run.final_state.end(), exact.final_state.begin()));
      CHECK(std::all_of(run.o.begin(), run.o.end(), [](float o) { return o == 4096; })); // the memory now holds v
      // What the memory held is not a number of bf16: rounding it before the difference would change the residual.
      CHECK(round_bf16(4096 + 2) != 4096 + 2);
      ++ran;
    }
  CHECK(ran > 0);
}
