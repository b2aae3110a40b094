// The vocabulary: shapes, sequences, names, and what counts as malformed.

#include "../problem.hpp"
#include "small_problems.hpp"

#include <catch2/catch.hpp>

#include <limits>

using namespace kdacheck;

namespace {

std::string sentence(const Problem& problem) { return malformed(problem).value_or("well formed"); }

} // namespace

TEST_CASE("problems of every option are well formed, with and without the optional tensors") {
  for (const Options& options : every_option())
    for (bool with : {false, true}) {
      INFO(describe(options));
      CHECK(sentence(make_small({.options = options, .initial_state = with, .dt_bias = with, .d_o = with, .d_final_state = with}, 1)) ==
            "well formed");
    }
}

TEST_CASE("a tensor of the wrong size, missing or superfluous, is named") {
  for (const Options& options : every_option())
    for (Input input : all_inputs) {
      Problem problem = make_small({.options = options}, 2);
      problem[input].push_back(1);
      INFO(describe(options) << " " << name(input));
      CHECK_THAT(sentence(problem), Catch::StartsWith(std::string(name(input)) + ": has "));
    }
  Problem problem = make_small({}, 2);
  problem.k.clear();
  CHECK_THAT(sentence(problem), Catch::StartsWith("k: has 0 elements"));
  problem = make_small({}, 2);
  problem.d_o.pop_back();
  CHECK_THAT(sentence(problem), Catch::StartsWith("d_o"));
  problem = make_small({}, 2);
  problem.d_final_state.push_back(0);
  CHECK_THAT(sentence(problem), Catch::StartsWith("d_final_state"));
}

TEST_CASE("a value that is not finite is refused, but A_log may be minus infinity") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (float value : {infinity, -infinity, nan})
    for (Input input : all_inputs) {
      Problem problem = make_small({.options = {.gate = GateForm::softplus}}, 3);
      if (problem[input].empty()) continue;
      problem[input].back() = value;
      INFO(name(input) << " = " << value);
      CHECK((sentence(problem) == "well formed") == (input == Input::A_log && value == -infinity));
    }
  Problem problem = make_small({.options = {.scale = nan}}, 3);
  CHECK_THAT(sentence(problem), Catch::Contains("scale"));
  problem = make_small({.options = {.gate = GateForm::bounded, .lower_bound = 0.5f}}, 3);
  CHECK_THAT(sentence(problem), Catch::Contains("lower_bound"));
}

TEST_CASE("impossible shapes and sequence boundaries are refused") {
  const auto with_shape = [](Shape shape) {
    Problem problem;
    problem.shape = shape;
    return sentence(problem);
  };
  CHECK_THAT(with_shape({.H = 2, .HV = 3}), Catch::Contains("multiple"));
  CHECK_THAT(with_shape({.K = 0}), Catch::Contains("at least 1"));
  CHECK_THAT(with_shape({.T = -1}), Catch::Contains("T at least 0"));
  const auto with_boundaries = [](std::vector<std::int64_t> boundaries, std::int64_t B = 1) {
    Problem problem = make_small({.shape = {.B = B, .T = 4, .H = 1, .HV = 1, .K = 1, .V = 1}, .initial_state = false}, 4);
    problem.d_final_state.clear();
    problem.cu_seqlens = std::move(boundaries);
    return sentence(problem);
  };
  CHECK(with_boundaries({0, 0, 1, 1, 4, 4}) == "well formed");
  CHECK_THAT(with_boundaries({0}), Catch::Contains("two entries"));
  CHECK_THAT(with_boundaries({1, 4}), Catch::Contains("first entry"));
  CHECK_THAT(with_boundaries({0, 3, 2, 4}), Catch::Contains("decrease"));
  CHECK_THAT(with_boundaries({0, 3}), Catch::Contains("last entry"));
  CHECK_THAT(with_boundaries({0, 4}, 2), Catch::Contains("B = 1"));
}

TEST_CASE("sequences are rows of a batch or members of the packed list, empty ones included") {
  const auto spans = [](const Problem& problem) {
    std::vector<std::array<std::int64_t, 3>> result;
    for (const Sequence& s : sequences(problem)) result.push_back({s.index, s.first, s.length});
    CHECK(sequence_count(problem) == static_cast<std::int64_t>(result.size()));
    return result;
  };
  using Spans = std::vector<std::array<std::int64_t, 3>>;
  CHECK(spans(make_small({.shape = {.B = 3, .T = 5}}, 5)) == Spans{{0, 0, 5}, {1, 5, 5}, {2, 10, 5}});
  CHECK(spans(make_small({.lengths = {0, 2, 1, 0}}, 5)) == Spans{{0, 0, 0}, {1, 0, 2}, {2, 2, 1}, {3, 3, 0}});
}

TEST_CASE("names read back as what they name") {
  for (Rule rule : {Rule::kda, Rule::dplr}) CHECK(rule_named(name(rule)) == rule);
  for (GateForm form : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent})
    CHECK(gate_form_named(name(form)) == form);
  for (BetaForm form : {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid}) CHECK(beta_form_named(name(form)) == form);
  CHECK_FALSE(rule_named("KDA"));
  CHECK_FALSE(gate_form_named(""));
  CHECK_FALSE(beta_form_named("tanh"));
}
