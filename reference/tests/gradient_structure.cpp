// Laws that gradients obey exactly, and what checkpoints, number types and extreme options may not change.

#include "../adjoint.hpp"
#include "small_problems.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <limits>

using namespace kdacheck;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Elements of [B,T,heads,channels] that belong to tokens in [first, last) of a B = 1 problem.
std::vector<double> tokens_of(const std::vector<double>& tensor, const Problem& problem, std::int64_t first, std::int64_t last) {
  const auto per_token = static_cast<std::int64_t>(tensor.size()) / problem.shape.T;
  return {tensor.begin() + first * per_token, tensor.begin() + last * per_token};
}

bool all_zero(const std::vector<double>& values) {
  return !values.empty() && std::all_of(values.begin(), values.end(), [](double x) { return x == 0; });
}

bool none_zero(const std::vector<double>& values) {
  return !values.empty() && std::all_of(values.begin(), values.end(), [](double x) { return x != 0 && std::isfinite(x); });
}

bool all_finite(const Problem& problem, const Gradients<double>& gradients) {
  for (Input input : all_inputs) {
    if (gradients[input].size() != problem[input].size()) return false;
    for (double d : gradients[input])
      if (!std::isfinite(d)) return false;
  }
  return true;
}

std::vector<Input> per_token_inputs(const Problem& problem) {
  std::vector<Input> result;
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta, Input::a, Input::b})
    if (!problem[input].empty()) result.push_back(input);
  return result;
}

/// A double that counts how many of its kind are alive, and multiplications.
struct Counted {
  static inline std::int64_t live = 0, most = 0, products = 0;
  double value = 0;

  explicit Counted(double x) : value(x) { born(); }
  Counted(const Counted& other) : value(other.value) { born(); }
  Counted& operator=(const Counted&) = default;
  ~Counted() { --live; }
  static void born() { most = std::max(most, ++live); }

  friend Counted operator+(const Counted& x, const Counted& y) { return Counted(x.value + y.value); }
  friend Counted operator-(const Counted& x, const Counted& y) { return Counted(x.value - y.value); }
  friend Counted operator*(const Counted& x, const Counted& y) {
    ++products;
    return Counted(x.value * y.value);
  }
  friend Counted operator/(const Counted& x, const Counted& y) { return Counted(x.value / y.value); }
  friend Counted operator-(const Counted& x) { return Counted(-x.value); }
  friend bool operator==(const Counted& x, const Counted& y) { return x.value == y.value; }
  friend bool operator<(const Counted& x, const Counted& y) { return x.value < y.value; }
  friend Counted exp(const Counted& x) { return Counted(std::exp(x.value)); }
  friend Counted log(const Counted& x) { return Counted(std::log(x.value)); }
  friend Counted log1p(const Counted& x) { return Counted(std::log1p(x.value)); }
  friend Counted sqrt(const Counted& x) { return Counted(std::sqrt(x.value)); }
};

} // namespace

TEST_CASE("with a loss on the output of one token, later tokens get exactly nothing and earlier ones get something") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    Problem problem =
        make_small({.shape = {.T = 9, .H = 1, .HV = 2, .K = 3, .V = 2}, .options = {.rule = rule}, .d_final_state = false}, 3);
    const std::int64_t t = 5;
    const std::size_t per_token = problem.d_o.size() / 9;
    for (std::size_t i = 0; i < problem.d_o.size(); ++i)
      if (i / per_token != static_cast<std::size_t>(t)) problem.d_o[i] = 0;
    const Gradients<double> gradients = backward<double>(problem).gradients;
    for (Input input : per_token_inputs(problem)) {
      INFO(name(rule) << " " << name(input));
      CHECK(all_zero(tokens_of(gradients[input], problem, t + 1, 9)));
      if (input == Input::q) {
        CHECK(all_zero(tokens_of(gradients[input], problem, 0, t)));
        CHECK(none_zero(tokens_of(gradients[input], problem, t, t + 1)));
      } else {
        CHECK(none_zero(tokens_of(gradients[input], problem, 0, t + 1)));
      }
    }
    CHECK(none_zero(gradients[Input::initial_state]));
  }
}

TEST_CASE("nothing crosses from one head or sequence to another") {
  Problem problem = make_small({.shape = {.H = 2, .HV = 4, .K = 2, .V = 2}, .lengths = {4, 0, 5}, .d_final_state = false}, 8);
  const std::size_t V = 2, HV = 4, K = 2; // the loss sits in sequence 2 (tokens 4 to 8), value head 2, which reads key head 1
  for (std::size_t i = 0; i < problem.d_o.size(); ++i)
    if (i / V % HV != 2 || i / V / HV < 4) problem.d_o[i] = 0;
  const Gradients<double> gradients = backward<double>(problem).gradients;
  for (std::size_t i = 0; i < gradients[Input::v].size(); ++i) CHECK((gradients[Input::v][i] != 0) == (i / V % HV == 2 && i / V / HV >= 4));
  for (std::size_t i = 0; i < gradients[Input::k].size(); ++i) CHECK((gradients[Input::k][i] != 0) == (i / K % 2 == 1 && i / K / 2 >= 4));
  for (std::size_t i = 0; i < gradients[Input::initial_state].size(); ++i)
    CHECK((gradients[Input::initial_state][i] != 0) == (i / (K * V) == 2 * HV + 2));
}

TEST_CASE("gradients of value heads that share a key head add up") {
  const Problem grouped = make_small({.shape = {.T = 6, .H = 1, .HV = 3, .K = 2, .V = 2}}, 21);
  Problem repeated = grouped; // the same with the key head written out three times
  repeated.shape.H = 3;
  for (Input input : {Input::q, Input::k}) {
    repeated[input].clear();
    for (std::size_t t = 0; t < 6; ++t)
      for (int copy = 0; copy < 3; ++copy)
        repeated[input].insert(repeated[input].end(), grouped[input].begin() + 2 * t, grouped[input].begin() + 2 * t + 2);
  }
  const Gradients<double> sums = backward<double>(grouped).gradients, parts = backward<double>(repeated).gradients;
  CHECK(sums[Input::v] == parts[Input::v]);
  for (Input input : {Input::q, Input::k})
    for (std::size_t t = 0; t < 6; ++t)
      for (std::size_t i = 0; i < 2; ++i) {
        const auto& part = parts[input];
        CHECK(sums[input][2 * t + i] == (part[6 * t + i] + part[6 * t + 2 + i]) + part[6 * t + 4 + i]);
      }
}

TEST_CASE("a sequence split anywhere, with state and its cotangent handed over, gives bit for bit the same") {
  // no decay, beta in {1/2, 1} and small integers: every number is a dyadic one that fp32 can hand over exactly
  const std::int64_t T = 7, K = 2, V = 2;
  Problem whole = make_small({.shape = {.T = T, .H = 1, .HV = 1, .K = K, .V = V}, .options = {.gate = GateForm::absent}, .d_o = true}, 4);
  const auto make_dyadic = [](std::vector<float>& values, float unit) {
    for (float& value : values) value = unit * std::round(value / unit);
  };
  for (auto* values : {&whole.q, &whole.k, &whole.v, &whole.initial_state, &whole.d_o, &whole.d_final_state}) make_dyadic(*values, 1);
  for (float& beta : whole.beta) beta = beta > 0.7f ? 1.0f : 0.5f;
  const Reverse<double> expected = backward<double>(whole);
  const auto handed_over = [](const std::vector<double>& values) {
    std::vector<float> result(values.begin(), values.end());
    REQUIRE(std::equal(values.begin(), values.end(), result.begin()));
    return result;
  };
  for (std::int64_t cut = 0; cut <= T; ++cut) {
    const auto part = [&](std::int64_t first, std::int64_t last) {
      Problem problem = whole;
      problem.shape.T = last - first;
      const auto keep = [&](std::vector<float>& values, std::int64_t width) {
        values = std::vector<float>(values.begin() + first * width, values.begin() + last * width);
      };
      keep(problem.q, K), keep(problem.k, K), keep(problem.v, V), keep(problem.beta, 1), keep(problem.d_o, V);
      return problem;
    };
    Problem before = part(0, cut), after = part(cut, T);
    after.initial_state = handed_over(forward<double>(before).final_state);
    const Reverse<double> later = backward<double>(after);
    before.d_final_state = handed_over(later.gradients[Input::initial_state]);
    const Reverse<double> earlier = backward<double>(before);
    INFO("cut at " << cut);
    CHECK(later.outputs.final_state == expected.outputs.final_state);
    CHECK(earlier.gradients[Input::initial_state] == expected.gradients[Input::initial_state]);
    for (Input input : per_token_inputs(whole)) {
      INFO(name(input));
      std::vector<double> joined = earlier.gradients[input];
      joined.insert(joined.end(), later.gradients[input].begin(), later.gradients[input].end());
      CHECK(joined == expected.gradients[input]);
    }
  }
}

TEST_CASE("a loss on outputs and one on the final state add up") {
  Problem both = make_small({.shape = {.T = 6, .H = 1, .HV = 1, .K = 2, .V = 2}, .options = {.gate = GateForm::bounded}}, 14);
  Problem outputs = both, state = both;
  outputs.d_final_state.clear();
  state.d_o.clear();
  const Gradients<long double> sum = backward<long double>(both).gradients, one = backward<long double>(outputs).gradients,
                               other = backward<long double>(state).gradients;
  for (Input input : all_inputs)
    for (std::size_t i = 0; i < sum[input].size(); ++i) // 64 bits; the terms are of order one to ten
      CHECK(std::fabs(sum[input][i] - one[input][i] - other[input][i]) <= 1e-16L * (1 + std::fabs(sum[input][i])));
}

TEST_CASE("with beta 0 the key and value receive nothing but beta receives its slope") {
  Problem problem = make_small({.shape = {.T = 4, .H = 1, .HV = 1, .K = 2, .V = 2}}, 17);
  for (float& beta : problem.beta) beta = 0;
  const Gradients<double> gradients = backward<double>(problem).gradients;
  CHECK(all_zero(gradients[Input::k]));
  CHECK(all_zero(gradients[Input::v]));
  CHECK(none_zero(gradients[Input::beta]));
  CHECK(none_zero(gradients[Input::g]));
}

TEST_CASE("all gradients are finite at extreme gates, betas and zero keys") {
  const Shape shape{.T = 6, .H = 1, .HV = 2, .K = 3, .V = 2};
  std::uint64_t seed = 60;
  for (const Options& options : every_option()) {
    Problem problem = make_small({.shape = shape, .options = options}, ++seed);
    INFO(describe(options));
    for (float A_log : {-infinity, -10.0f, 6.0f, 88.0f, 3e38f})
      for (float x : {-1e3f, -40.0f, 0.5f, 40.0f, 1e3f})
        for (float beta : {0.0f, 1.0f, -40.0f, 40.0f}) {
          for (float& value : problem.A_log) value = A_log;
          for (float& value : problem.g) value = options.gate == GateForm::log_decay ? -std::fabs(x) : x;
          for (float& value : problem.dt_bias) value = 0;
          for (float& value : problem.beta) value = options.beta == BetaForm::value ? std::fabs(beta) / 40 : beta;
          for (std::size_t i = 0; i < 3; ++i) problem.k[6 + i] = 0;
          CHECK(all_finite(problem, backward<double>(problem).gradients));
        }
  }
}

TEST_CASE("the adjoint holds no more states at a time than about two roots of the length") {
  const std::int64_t T = 400, K = 12, V = 12;
  const Problem problem = make_small({.shape = {.T = T, .H = 1, .HV = 1, .K = K, .V = V}}, 2);
  Counted::most = Counted::live = 0;
  const Reverse<Counted> result = backward<Counted>(problem);
  CHECK(result.gradients[Input::k][0].value == backward<double>(problem).gradients[Input::k][0]);
  const std::int64_t tensors = T * (3 * K + 2 * V + 1) + 2 * K * V; // outputs and gradients
  const std::int64_t tokens = 20 * (4 * K + V + 1);                 // of the segment that is being reversed
  const std::int64_t states = (20 + 21 + 8) * K * V;                // checkpoints, segment, and a few in the step
  CHECK(Counted::most <= tensors + tokens + states);
  CHECK(tensors + tokens + states < T * K * V); // every state kept would not pass
}

TEST_CASE("the adjoint costs less than five times the multiplications of the forward pass") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const Problem asked = make_small({.shape = {.T = 64, .H = 1, .HV = 1, .K = 32, .V = 32}, .options = {.rule = rule}}, 2);
    Counted::products = 0;
    forward<Counted>(asked);
    const std::int64_t forward_products = Counted::products;
    Counted::products = 0;
    backward<Counted>(asked);
    INFO(name(rule));
    CHECK(Counted::products < 5 * forward_products);
  }
}
