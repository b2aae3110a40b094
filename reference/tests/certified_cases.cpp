// Cases with known answers or known traps.

#include "enclosure_tally.hpp"
#include "random_problem.hpp"

#include <catch2/catch.hpp>

#include <omp.h>

#include <stdexcept>
#include <string_view>

using namespace kdacheck;
using namespace kdacheck::test;

namespace {

constexpr std::array ways{fp64_way, double_double_way, mpfr_way, cpp_bin_float_way};

Problem one_head(std::int64_t T, std::int64_t K, std::int64_t V, std::uint64_t seed, double key_size = 1) {
  std::mt19937_64 bits(seed);
  const auto uniform = [&] { return static_cast<double>(bits() >> 11) * 0x1p-53; };
  const auto fill = [&](std::int64_t size, double low, double high) {
    std::vector<float> tensor(static_cast<std::size_t>(size));
    for (float& x : tensor) x = static_cast<float>(low + (high - low) * uniform());
    return tensor;
  };
  Problem p;
  p.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = K, .V = V};
  p.options.scale = 0.25f;
  const double key = key_size * std::sqrt(3.0 / static_cast<double>(K));
  p.q = fill(T * K, -1, 1);
  p.k = fill(T * K, -key, key);
  p.v = fill(T * V, -1, 1);
  p.g = fill(T * K, -0.1, 0);
  p.beta = fill(T, 0, 1);
  p.initial_state = fill(K * V, -1, 1);
  p.d_o = fill(T * V, -1, 1);
  p.d_final_state = fill(K * V, -1, 1);
  return p;
}

/// The first tokens of one_head.
Problem first_tokens(Problem p, std::int64_t T) {
  const auto [B, all, H, HV, K, V] = p.shape;
  const auto cut = [&](std::vector<float>& tensor, std::int64_t width) { tensor.resize(static_cast<std::size_t>(T * width)); };
  p.shape.T = T;
  cut(p.q, K), cut(p.k, K), cut(p.g, K), cut(p.v, V), cut(p.d_o, V), cut(p.beta, 1);
  return p;
}

bool same_bits(const Enclosed& a, const Enclosed& b) { return a.value == b.value && a.low == b.low && a.radius == b.radius; }

double largest_radius(const Enclosed& tensor) {
  double largest = 0;
  for (double radius : tensor.radius)
    if (!(radius <= largest)) largest = radius;
  return largest;
}

/// Elements whose enclosures by two truths do not meet.
std::size_t disjoint(const Enclosed& a, const Enclosed& b) {
  std::size_t result = 0;
  REQUIRE(a.value.size() == b.value.size());
  for (std::size_t i = 0; i < a.value.size(); ++i) {
    const double low = (a.low.empty() ? 0 : a.low[i]) - (b.low.empty() ? 0 : b.low[i]);
    const double apart = std::fabs((a.value[i] - b.value[i]) + low);
    if (!(apart <= (a.radius[i] + b.radius[i]) * (1 + 0x1p-40))) ++result;
  }
  return result;
}

} // namespace

TEST_CASE("without tokens the final state is the initial state, exactly, and so is its gradient") {
  const Problem p = one_head(0, 3, 2, 1);
  for (const Way& way : ways) {
    CAPTURE(way.name);
    const Truth truth = way.gradient(p);
    CHECK(truth.o.empty());
    REQUIRE(truth.final_state.value.size() == 6);
    for (std::size_t i = 0; i < 6; ++i) {
      CHECK(truth.final_state.value[i] == p.initial_state[i]);
      CHECK(truth[Input::initial_state].value[i] == p.d_final_state[i]);
      CHECK(truth.final_state.radius[i] < 1e-30);
      CHECK(truth[Input::initial_state].radius[i] < 1e-30);
    }
  }
}

TEST_CASE("one channel, one value: every tier gives the answer worked out by hand") {
  // S0 = 2, g = 0, k = 1/2, beta = 1/2, v = 3, q = 4, scale = 1/4:  w = 3 - 1 = 2, S = 2 + 1/2 * 1/2 * 2 = 5/2, o = 5/2
  // with do = 1, dS = 0: Lambda = 1, m = 1/2: dv = 1/4, dbeta = 1, dq = 5/8, dk = 1/2 * 2 - 2 * 1/4 = 1/2, Y = 7/8, dg = 7/4
  Problem p;
  p.shape = {.B = 1, .T = 1, .H = 1, .HV = 1, .K = 1, .V = 1};
  p.options.scale = 0.25f;
  p.q = {4}, p.k = {0.5f}, p.v = {3}, p.g = {0}, p.beta = {0.5f}, p.initial_state = {2}, p.d_o = {1};
  for (const Way& way : ways) {
    CAPTURE(way.name);
    const Truth truth = way.gradient(p);
    const auto check = [](const Enclosed& tensor, double expected) {
      REQUIRE(tensor.value.size() == 1);
      CHECK(tensor.value[0] == expected);
      CHECK(tensor.radius[0] < 1e-13);
    };
    check(truth.o, 2.5);
    check(truth.final_state, 2.5);
    check(truth[Input::q], 0.625);
    check(truth[Input::k], 0.5);
    check(truth[Input::v], 0.25);
    check(truth[Input::beta], 1);
    check(truth[Input::g], 1.75);
    check(truth[Input::initial_state], 0.875);
  }
}

TEST_CASE("a token with beta 0 and g 0 leaves the state as it is") {
  Problem p = one_head(5, 6, 3, 4);
  std::fill(p.g.begin(), p.g.end(), 0.0f);
  std::fill(p.beta.begin(), p.beta.end(), 0.0f);
  for (const Way& way : ways) {
    CAPTURE(way.name);
    const Truth truth = way.forward(p);
    for (std::size_t i = 0; i < p.initial_state.size(); ++i) CHECK(truth.final_state.value[i] == p.initial_state[i]);
  }
}

TEST_CASE("total decay, saturated gates and huge A_log keep finite radii") {
  for (GateForm form : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid})
    for (float extreme : {-1e3f, -1e6f, -3e38f, 80.0f, 1e4f}) {
      if (form == GateForm::log_decay && extreme > 0) continue;
      Problem p = one_head(6, 5, 3, 9);
      p.options.gate = form;
      for (std::size_t i = 0; i < p.g.size(); i += 2) p.g[i] = extreme;
      if (form == GateForm::softplus || form == GateForm::bounded) {
        p.A_log = {std::fabs(extreme) < 2e4f ? std::fabs(extreme) : 3.0f};
        for (float& x : p.g) x = x == 0 ? 1 : x;
        if (form == GateForm::softplus)
          for (float& x : p.g) x = std::fabs(x);
      }
      for (const Way& way : {fp64_way, double_double_way}) {
        CAPTURE(way.name, name(form), extreme);
        const Truth truth = way.gradient(p);
        CHECK(std::isfinite(largest_radius(truth.o)));
        for (Input input : all_inputs) {
          CAPTURE(name(input));
          CHECK(std::isfinite(largest_radius(truth[input])));
        }
      }
    }
}

TEST_CASE("an overflowing product of transitions gives infinite radii and no NaN") {
  Problem p = one_head(900, 4, 2, 5, 3);
  std::fill(p.beta.begin(), p.beta.end(), 4.0f);
  for (const Way& way : {fp64_way, double_double_way}) {
    const Truth truth = way.gradient(p);
    CHECK(std::isinf(largest_radius(truth.final_state)));
    for (const Enclosed* tensor : {&truth.o, &truth.final_state, &truth[Input::k], &truth[Input::g]})
      for (std::size_t i = 0; i < tensor->value.size(); ++i) {
        REQUIRE(std::isfinite(tensor->value[i]));
        REQUIRE(tensor->radius[i] >= 0);
      }
  }
}

TEST_CASE("over many checkpoints the tiers enclose the same numbers, each tighter than the one before") {
  const std::array more_channels{Rule::kda, Rule::dplr};
  for (Rule rule : more_channels) {
    Problem p = one_head(230, 21, 9, 8);
    if (rule == Rule::dplr) {
      p.options.rule = rule;
      p.a = p.b = p.k;
      p.beta.clear();
    }
    const Truth coarse = gradient_truth(p), fine = gradient_truth(p, Arithmetic::double_double);
    const Truth finest = gradient_truth(p, Arithmetic::multiprecision, 160);
    CHECK(finest.bits == 160);
    const auto check = [&](const Enclosed& a, const Enclosed& b, const Enclosed& c) {
      CHECK(disjoint(a, c) == 0);
      CHECK(disjoint(b, c) == 0);
      CHECK(largest_radius(a) < 1e-8);
      CHECK(largest_radius(b) < 1e-10 * largest_radius(a));
      CHECK(largest_radius(c) < largest_radius(b));
    };
    check(coarse.o, fine.o, finest.o);
    check(coarse.final_state, fine.final_state, finest.final_state);
    for (Input input : all_inputs)
      if (!p[input].empty()) {
        CAPTURE(name(input));
        check(coarse[input], fine[input], finest[input]);
      }
  }
}

TEST_CASE("a column's norm that is carried from token to token widens radii, and by little") {
  // The norm is measured at the last token of a run: runs cut after every token measure it everywhere.
  struct Kind {
    const char* what;
    double key_size, most_wider;
  };
  for (const Kind& kind : {Kind{"decay apart by channels", 1, 1.5}, Kind{"all but one channel erased at times", 1, 8},
                           Kind{"one key, reflected by beta 2", 1, 1.5}, Kind{"keys of length 2", 2, 1.5}}) {
    Problem p = one_head(40, 16, 9, 11, kind.key_size);
    if (std::string_view(kind.what).starts_with("all but"))
      for (std::size_t t = 0; t < 40; t += 5)
        for (std::size_t i = 1; i < 16; ++i) p.g[t * 16 + i] = -1000;
    if (std::string_view(kind.what).starts_with("one key")) {
      for (std::size_t i = 16; i < p.k.size(); ++i) p.k[i] = p.k[i - 16];
      std::ranges::fill(p.beta, 2.0f);
    }
    const Truth whole = forward_truth(p, Arithmetic::fp64);
    double widest = 0;
    for (std::int64_t T = 1; T <= 40; ++T) {
      const Truth cut = forward_truth(first_tokens(p, T), Arithmetic::fp64);
      for (std::size_t i = static_cast<std::size_t>(T - 1) * 9; i < static_cast<std::size_t>(T) * 9; ++i) {
        CAPTURE(kind.what, T, i);
        CHECK(whole.o.value[i] == cut.o.value[i]);
        CHECK(whole.o.radius[i] >= cut.o.radius[i] * (1 - 0x1p-30));
        widest = std::max(widest, whole.o.radius[i] / cut.o.radius[i]);
      }
    }
    CAPTURE(kind.what, widest);
    CHECK(widest > 1);
    CHECK(widest < kind.most_wider);
  }
}

TEST_CASE("no result depends on the number of threads, nor on being called from inside a parallel region") {
  for (std::uint64_t seed = 100; seed < 130; ++seed) {
    const Problem p = random_problem(seed, 40, 9, 11);
    for (const Way& way : {fp64_way, double_double_way}) {
      const int before = omp_get_max_threads();
      omp_set_num_threads(1);
      const Truth one = way.gradient(p);
      omp_set_num_threads(5);
      const Truth five = way.gradient(p);
      Truth inside;
#pragma omp parallel num_threads(2)
      if (omp_get_thread_num() == 1) inside = way.gradient(p);
      omp_set_num_threads(before);
      CAPTURE(seed, way.name);
      for (const Truth* other : std::initializer_list<const Truth*>{&five, &inside}) {
        CHECK(same_bits(one.o, other->o));
        CHECK(same_bits(one.final_state, other->final_state));
        for (Input input : all_inputs) CHECK(same_bits(one[input], (*other)[input]));
      }
    }
  }
}

TEST_CASE("gradient_truth encloses the outputs as forward_truth does") {
  for (std::uint64_t seed = 200; seed < 230; ++seed) {
    const Problem p = random_problem(seed, 60, 9, 11);
    CAPTURE(seed);
    CHECK(same_bits(forward_truth(p).o, gradient_truth(p).o));
    CHECK(same_bits(forward_truth(p).final_state, gradient_truth(p).final_state));
  }
}

TEST_CASE("more channels than the rounding of bounds is proved for are refused") {
  CHECK_NOTHROW(forward_truth(one_head(0, 4096, 1, 3)));
  for (Arithmetic arithmetic : {Arithmetic::fp64, Arithmetic::double_double, Arithmetic::multiprecision}) {
    CHECK_THROWS_AS(forward_truth(one_head(0, 4097, 1, 3), arithmetic), std::invalid_argument);
    CHECK_THROWS_AS(gradient_truth(one_head(0, 4097, 1, 3), arithmetic), std::invalid_argument);
  }
}

TEST_CASE("truth escalates from fp64 to 1024 bits and then stops") {
  Truth truth;
  std::vector<int> bits;
  while (const auto next = more_precise(truth)) {
    truth.arithmetic = next->first;
    truth.bits = next->second;
    bits.push_back(truth.bits);
    REQUIRE(bits.size() < 20);
  }
  CHECK(bits == std::vector<int>{106, 226, 452, 904, 1024});
  const Problem p = random_problem(17);
  CHECK(forward_truth(p, Arithmetic::multiprecision, 1024).bits == 1024);
  CHECK(forward_truth(p, Arithmetic::multiprecision, 20).bits == 113);
}
