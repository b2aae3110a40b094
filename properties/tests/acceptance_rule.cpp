#include "../acceptance_rule.hpp"
#include "../selection.hpp"

#include <catch2/catch.hpp>

#include <limits>

using namespace kdacheck;

namespace {

Truth truth_of(std::vector<double> o) {
  Truth truth;
  truth.o.value = std::move(o);
  return truth;
}

Run run_of(std::vector<float> o) {
  Run run;
  run.o = std::move(o);
  return run;
}

bool accepts(const char* rule, std::vector<float> run, std::vector<double> truth, std::vector<float> reference = {}) {
  return accepts(parse_rule(rule), run_of(std::move(run)), truth_of(std::move(truth)), run_of(std::move(reference)));
}

} // namespace

TEST_CASE("allclose is absolute plus relative, element by element") {
  CHECK(accepts("allclose:atol=0.01,rtol=0", {1.009f, 0}, {1, 0}));
  CHECK_FALSE(accepts("allclose:atol=0.01,rtol=0", {1.011f, 0}, {1, 0}));
  CHECK(accepts("allclose:rtol=0.1", {109}, {100}));
  CHECK_FALSE(accepts("allclose:rtol=0.1", {109, 1e-3f}, {100, 0}));
}

TEST_CASE("rms_rel pools a tensor, so that one wrong element hides in many") {
  std::vector<float> run(1000, 1.0f);
  const std::vector<double> truth(1000, 1.0);
  run[3] = 1.1f;
  CHECK(accepts("rms_rel:0.005", run, truth));
  CHECK_FALSE(accepts("rms_rel:0.003", run, truth));
  CHECK_FALSE(accepts("allclose:atol=0.01,rtol=0.01", run, truth));
}

TEST_CASE("correlation does not see a scale") {
  CHECK(accepts("pcc:0.999", {2, 4, 6.1f}, {1, 2, 3}));
  CHECK_FALSE(accepts("pcc:0.999", {3, 2, 1}, {1, 2, 3}));
}

TEST_CASE("twice_ref measures against a correct kernel's error") {
  CHECK(accepts("twice_ref", {1.019f}, {1}, {1.01f}));
  CHECK_FALSE(accepts("twice_ref", {1.021f}, {1}, {1.01f}));
}

TEST_CASE("what is not finite or has the wrong size is refused by every rule") {
  for (const char* rule : {"allclose:atol=1e9", "rms_rel:1e9", "pcc:0", "twice_ref"}) {
    CHECK_FALSE(accepts(rule, {std::numeric_limits<float>::quiet_NaN(), 1}, {1, 1}, {1, 1}));
    CHECK_FALSE(accepts(rule, {std::numeric_limits<float>::infinity(), 1}, {1, 1}, {1, 1}));
    CHECK_FALSE(accepts(rule, {1}, {1, 1}, {1, 1}));
  }
}

TEST_CASE("a rule that is none is refused with a sentence") {
  for (const char* text :
       {"", "rms_rel", "rms_rel:", "rms_rel:x", "rms_rel:-1", "rms_rel:1e-2x", "rms_rel:inf", "allclose", "allclose:", "allclose:tol=1",
        "allclose:atol=", "allclose:atol=inf,rtol=0", "allclose:atol=1e-2,atol=1", "pcc:nan", "twice_ref:2", "cosine:0.9"})
    CHECK_THROWS_AS(parse_rule(text), UsageError);
  CHECK(parse_rule("allclose:rtol=0.5").absolute == 0);
  CHECK(parse_rule("allclose:rtol=0.5").relative == 0.5);
}

TEST_CASE("gradients are held to a rule tensor by tensor") {
  Truth truth;
  Run run, other;
  const auto k = static_cast<std::size_t>(Input::k), v = static_cast<std::size_t>(Input::v);
  truth[Input::k].value = {1, 2}, truth[Input::v].value = {3};
  run.gradient[k] = {1, 2}, run.gradient[v] = {3.02f};
  CHECK(accepts_gradients(parse_rule("rms_rel:0.01"), run, truth, other));
  CHECK_FALSE(accepts_gradients(parse_rule("rms_rel:0.005"), run, truth, other));
  run.gradient[v].clear(); // not asked for
  CHECK(accepts_gradients(parse_rule("rms_rel:0.005"), run, truth, other));
  other.gradient[k] = {1.1f, 2}, run.gradient[k] = {1.19f, 2};
  CHECK(accepts_gradients(parse_rule("twice_ref"), run, truth, other));
  run.gradient[k] = {1.21f, 2};
  CHECK_FALSE(accepts_gradients(parse_rule("twice_ref"), run, truth, other));
}

TEST_CASE("a correlation above 1 cannot be asked for") { CHECK_THROWS_AS(parse_rule("pcc:1.5"), UsageError); }
