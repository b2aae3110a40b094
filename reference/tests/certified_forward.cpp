#include "enclosure_tally.hpp"
#include "random_problem.hpp"

#include <catch2/catch.hpp>

#include <map>

using namespace kdacheck;
using namespace kdacheck::test;

namespace {

/// Largest sizes of a random problem.
struct Sizes {
  std::int64_t T = 6, K = 5, V = 4;
};

void compare(const Enclosed& enclosed, const std::vector<Dual>& exact, Tally& tally, const std::string& place, double shrink) {
  REQUIRE(enclosed.value.size() == exact.size());
  REQUIRE(enclosed.radius.size() == exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) tally.count(enclosed, i, exact[i].value, place, shrink);
}

/// Every output element of `count` random problems against Arb balls.
Tally forward_tally(const Way& way, std::uint64_t first, std::uint64_t count, double shrink = 1, const Sizes& most = {}) {
  Tally tally;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Problem problem = random_problem(seed, most.T, most.K, most.V);
    REQUIRE(malformed(problem).value_or("") == "");
    const Truth truth = way.forward(problem);
    const ArbOutputs exact = arb_forward(problem);
    compare(truth.o, exact.o, tally, "seed " + std::to_string(seed) + ": o", shrink);
    compare(truth.final_state, exact.final_state, tally, "seed " + std::to_string(seed) + ": final_state", shrink);
  }
  return tally;
}

void check(const Tally& tally, std::size_t least_elements) {
  CAPTURE(tally.first, tally.worst);
  CHECK(tally.elements >= least_elements);
  CHECK(tally.outside == 0);
  CHECK(tally.unknown == 0);
}

} // namespace

TEST_CASE("every output of 2500 random problems lies within its fp64 radius of the truth") {
  check(forward_tally(fp64_way, 0, 2500), 40000);
}

TEST_CASE("every output of 1500 random problems lies within its double-double radius of the truth") {
  check(forward_tally(double_double_way, 10000, 1500), 20000);
}

TEST_CASE("every output of 300 random problems lies within its MPFR radius of the truth") {
  check(forward_tally(mpfr_way, 30000, 300), 4000);
}

TEST_CASE("every output of 300 random problems lies within its cpp_bin_float radius of the truth") {
  check(forward_tally(cpp_bin_float_way, 40000, 300), 4000);
}

TEST_CASE("the same holds over several segments, groups of channels and blocks of columns, with norms carried from token to token") {
  for (const Way& way : {fp64_way, double_double_way}) {
    const Tally tally = forward_tally(way, 50000, 40, 1, {.T = 80, .K = 40, .V = 20});
    CAPTURE(way.name, tally.first, tally.worst);
    CHECK(tally.elements >= 20000);
    CHECK(tally.outside == 0);
    CHECK(tally.unknown < tally.elements / 5); // keys of length 30 leave the range of doubles after so many tokens
  }
}

TEST_CASE("the random problems are of every kind") {
  std::map<std::string, int> seen;
  for (std::uint64_t seed = 0; seed < 2500; ++seed) {
    const Problem p = random_problem(seed);
    const auto any = [](const std::vector<float>& tensor, auto is) { return std::any_of(tensor.begin(), tensor.end(), is); };
    ++seen["gate " + std::string(name(p.options.gate))];
    ++seen[std::string(name(p.options.rule)) + (p.options.l2norm ? ", keys normalised" : ", keys as given")];
    ++seen["beta " + std::string(name(p.options.beta))];
    seen["beta above 2"] += p.options.beta == BetaForm::value && any(p.beta, [](float x) { return x > 2; });
    seen["beta below 0"] += p.options.beta == BetaForm::value && any(p.beta, [](float x) { return x < 0; });
    bool long_key = false;
    for (std::size_t row = 0; row < p.k.size() && !p.options.l2norm; row += static_cast<std::size_t>(p.shape.K)) {
      double square = 0;
      for (std::int64_t i = 0; i < p.shape.K; ++i) square += std::pow(p.k[row + static_cast<std::size_t>(i)], 2);
      long_key = long_key || square > 1;
    }
    seen["a key longer than 1"] += long_key;
    seen["a total decay"] += p.options.gate == GateForm::log_decay && any(p.g, [](float x) { return x <= -1000; });
    seen["no decay"] += p.options.gate == GateForm::log_decay && !p.g.empty() && !any(p.g, [](float x) { return x != 0; });
    seen["a dead head"] += any(p.A_log, [](float x) { return std::isinf(x); });
    ++seen[p.initial_state.empty() ? "no initial state" : "an initial state"];
    ++seen[p.cu_seqlens.empty() ? "batched" : "packed"];
    seen["shared keys"] += p.shape.HV > p.shape.H;
    seen["no tokens"] += p.shape.T == 0;
    seen["huge values"] += any(p.v, [](float x) { return std::fabs(x) > 1e5f; });
    seen["tiny values"] += p.shape.T > 0 && !any(p.v, [](float x) { return std::fabs(x) > 1e-29f; });
  }
  CHECK(seen.size() == 26);
  for (const auto& [kind, count] : seen) {
    INFO(kind);
    CHECK(count >= 50);
  }
}

TEST_CASE("radii scaled down by 64 are refused") {
  for (const Way& way : {fp64_way, double_double_way}) {
    CAPTURE(way.name);
    CHECK(forward_tally(way, 20000, 300, 1.0 / 64).outside > 0);
  }
}
