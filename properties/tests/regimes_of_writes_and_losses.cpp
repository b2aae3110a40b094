// Regimes of beta, values, states, losses and the general rule do what their names say, measured on the tensors.

#include "regime_measures.hpp"

#include <set>

using namespace kdacheck;

TEST_CASE("beta has the values that its regime names") {
  for (const Case& c : cases("beta-zero"))
    for (float x : c.problem.beta) REQUIRE(x == 0);
  for (const Case& c : cases("beta-one"))
    for (float x : c.problem.beta) REQUIRE(x == 1);
  for (const Case& c : cases("reflections"))
    for (float x : c.problem.beta) REQUIRE(x == 2);
  Range tiny, two, plain;
  for (const Case& c : cases("beta-tiny"))
    for (float x : c.problem.beta) tiny.add(x);
  for (const Case& c : cases("beta-to-two"))
    for (float x : c.problem.beta) two.add(x);
  for (const Case& c : cases("gaussian-keys"))
    for (float x : c.problem.beta) plain.add(x);
  CHECK(tiny.most <= 2e-3);
  CHECK(tiny.least <= 1e-10);
  CHECK(tiny.least >= 0);
  CHECK(two.most > 1.99);
  CHECK(two.most <= 2);
  CHECK(plain.least >= 0);
  CHECK(plain.most <= 1);
  CHECK(plain.most > 0.99);
  Range logits;
  for (const Case& c : cases("beta-logits")) {
    CHECK(c.problem.options.beta != BetaForm::value);
    for (float x : c.problem.beta) logits.add(x);
  }
  CHECK(logits.least < -30);
  CHECK(logits.most > 30);
}

TEST_CASE("values and states have the size that their regime names") {
  for (const Case& c : cases("pure-transport")) {
    CHECK(range(c.problem.v).most == 0);
    CHECK(range(c.problem.v).least == 0);
    CHECK_FALSE(c.problem.initial_state.empty());
    CHECK(range(c.problem.initial_state).most > 0);
  }
  for (const Case& c : cases("large-values", {Format::fp16, Format::fp16, Format::fp16})) CHECK(range(c.problem.v).most <= 65504);
  Range largest, smallest;
  for (const Case& c : cases("large-values")) largest.add(range(c.problem.v).most);
  for (const Case& c : cases("tiny-values")) smallest.add(range(c.problem.v).most);
  CHECK(largest.most > 2e4);
  CHECK(smallest.least < 1e-29);
  for (const Case& c : cases("warm-chunk")) {
    CHECK(c.problem.shape.T <= 64);
    CHECK(range(c.problem.initial_state).most > 0);
  }
}

TEST_CASE("a faint memory is all there is, and fp32 holds it") {
  bool fell_at_once = false;
  for (const Case& c : cases("faint-memory")) {
    CHECK(range(c.problem.v).most == 0);
    CHECK(range(c.problem.v).least == 0);
    CHECK(range(c.problem.initial_state).most > 0);
    const Range g = range(c.problem.g);
    CHECK(g.least > -26);
    fell_at_once = fell_at_once || g.most < -20;
    if (c.recipe.seed % 2 == 0) CHECK((g.most < -20 && c.problem.shape.T <= 2)); // e^-52 at the least: far from fp32's end
  }
  CHECK(fell_at_once);
}

TEST_CASE("losses are where their regime says") {
  const auto zero = [](const std::vector<float>& x) { return std::all_of(x.begin(), x.end(), [](float value) { return value == 0; }); };
  for (const Case& c : cases("gaussian-keys")) {
    CHECK_FALSE(zero(c.problem.d_o));
    CHECK_FALSE(zero(c.problem.d_final_state));
  }
  for (const Case& c : cases("loss-on-outputs")) {
    CHECK_FALSE(zero(c.problem.d_o));
    CHECK(c.problem.d_final_state.empty());
  }
  for (const Case& c : cases("loss-on-final-state")) {
    CHECK(c.problem.d_o.empty());
    CHECK_FALSE(zero(c.problem.d_final_state));
  }
  for (const Case& c : cases("loss-on-one-token")) {
    std::set<std::size_t> tokens;
    const auto token = static_cast<std::size_t>(c.problem.shape.HV * c.problem.shape.V);
    for (std::size_t at = 0; at < c.problem.d_o.size(); ++at)
      if (c.problem.d_o[at] != 0) tokens.insert(at / token);
    CHECK(tokens.size() == 1);
  }
  for (const Case& c : cases("loss-on-one-head")) {
    std::set<std::size_t> heads;
    const auto V = static_cast<std::size_t>(c.problem.shape.V), HV = static_cast<std::size_t>(c.problem.shape.HV);
    for (std::size_t at = 0; at < c.problem.d_o.size(); ++at)
      if (c.problem.d_o[at] != 0) heads.insert(at / V % HV);
    CHECK(heads.size() == 1);
    CHECK(HV > 1);
  }
}

TEST_CASE("benign transitions of the general rule contract, and those of RWKV-7 are a unit vector against itself") {
  for (const Case& c : cases("dplr-benign")) {
    const Problem& p = c.problem;
    for (std::size_t at = 0; at < p.a.size(); at += static_cast<std::size_t>(p.shape.K)) {
      Range g;
      for (std::int64_t i = 0; i < p.shape.K; ++i) g.add(p.g[at + static_cast<std::size_t>(i)]);
      const double norm = std::sqrt(dot(&p.a[at], &p.a[at], p.shape.K) * dot(&p.b[at], &p.b[at], p.shape.K));
      REQUIRE(std::exp(g.most) + norm < 1);
    }
  }
  for (const Case& c : cases("dplr-rwkv7")) {
    const Problem& p = c.problem;
    for (std::size_t at = 0; at < p.a.size(); ++at) {
      const double ratio = p.b[at] / p.a[at];
      REQUIRE(ratio > 0);
      REQUIRE(ratio < 1);
    }
  }
}
