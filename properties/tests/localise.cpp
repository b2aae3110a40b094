// Planted faults are localised on a case that shows them, each left out of the fit: is the stage the one that the
// catalogue declares? localised_faults.txt lists those that are named right, as measured; run this program with "measured"
// to see all of them (BACKWARD=1: those of the backward pass; CONTRACT="...": under another contract; PLACE=chunk: acting from the
// second chunk on only; PLACE=head: in the second head only; PLACE=group: anywhere, on heads that share q and k; FAULTS="a b": these
// alone).

#include "../localise/localise.hpp"

#include "../../kernels/faults/placed_faults.hpp"
#include "../../reference/chunk_adjoint.hpp"
#include "../perturbed/reverse_chunk.hpp"
#include "../transform.hpp"

#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <string>

using namespace kdacheck;

namespace {

const Property& law(bool backward) {
  const auto all = properties();
  const auto found = std::ranges::find(all, backward ? "gradients-agree-with-the-oracle" : "agrees-with-the-oracle", &Property::name);
  REQUIRE(found != all.end());
  return *found;
}

/// The first draw of any regime on which agreement with the oracle fails; `grouped`: of heads that share q and k.
std::optional<Recipe> shown_by(const Kernel& kernel, bool backward, Judge& judge, bool grouped = false) {
  for (std::uint64_t seed : {64, 65}) // the first of every run of 64 is longer than a chunk
    for (const Regime& regime : regimes()) {
      const Recipe recipe = fitted(regime.draw(seed, Tier::quick), kernel.contract);
      if (grouped && recipe.shape.HV == recipe.shape.H) continue;
      if (outside_domain(kernel.contract, make_problem(recipe, input_formats(kernel.contract)))) continue;
      if (is_failure(law(backward).check({kernel, judge}, recipe).verdict)) return recipe;
    }
  return std::nullopt;
}

std::string shown(const StageOpinion& opinion, std::string_view declared) {
  const char* how = !opinion.stage ? "?" : name(*opinion.stage) == declared ? "right" : "WRONG";
  return fmt::format("{:<5} {:<11} {:.2f}", how, opinion.stage ? name(*opinion.stage) : "unclear", opinion.confidence);
}

Placement placement(std::string_view place) {
  return place == "chunk" ? Placement{.first_chunk = 1} : place == "head" ? Placement{.head = 1} : Placement{};
}

} // namespace

TEST_CASE("measured", "[.measure]") {
  const bool backward = std::getenv("BACKWARD") != nullptr;
  const std::string contract = std::getenv("CONTRACT") ? std::getenv("CONTRACT") : "";
  const std::string place = std::getenv("PLACE") ? std::getenv("PLACE") : "";
  const std::string faults = std::getenv("FAULTS") ? " " + std::string(std::getenv("FAULTS")) + " " : "";
  const auto wanted = [&](std::string_view fault) {
    return faults.empty() || faults.find(" " + std::string(fault) + " ") != std::string::npos;
  };
  Judge judge;
  std::map<std::string, int> tally;
  for (const FaultInfo& planted : planted_faults()) {
    if (planted.backward != backward || !wanted(planted.name)) continue;
    FaultInfo info = planted;
    if (!contract.empty()) info.contract = contract;
    const Kernel kernel = faulty_kernel(info, placement(place));
    const auto recipe = shown_by(kernel, backward, judge, place == "group");
    const std::string_view declared = name(*stage_of(info.fault));
    if (!recipe) {
      fmt::print("{:<34} {:<11} not shown\n", info.name, declared);
      ++tally["not shown by agreement"];
      continue;
    }
    const Localisation found = localise(kernel, law(backward), *recipe, judge, info.fault);
    ++tally["by experiments " + shown(found.by_experiments, declared).substr(0, 5)];
    ++tally["by intermediates " + shown(found.by_intermediates, declared).substr(0, 5)];
    ++tally["by faults " + shown(found.by_faults, declared).substr(0, 5)];
    ++tally["together " + shown(found.together, declared).substr(0, 5)];
    fmt::print("{:<34} {:<11} together {} experiments {} intermediates {} faults {} | {} | {} | {} | {}\n", info.name, declared,
               shown(found.together, declared), shown(found.by_experiments, declared), shown(found.by_intermediates, declared),
               shown(found.by_faults, declared), recipe->regime, found.by_experiments.grounds, found.by_intermediates.grounds,
               found.by_faults.grounds);
    std::fflush(stdout);
  }
  for (const auto& [key, count] : tally) fmt::print("{} {}\n", key, count);
}

namespace {

void expect_right_stages(bool backward) {
  std::ifstream list(KDACHECK_LOCALISED_FAULTS);
  std::set<std::string> names;
  for (std::string line; std::getline(list, line);)
    if (!line.empty() && !line.starts_with('#')) names.insert(line);
  Judge judge;
  std::size_t tried = 0;
  for (const FaultInfo& info : planted_faults()) {
    if (info.backward != backward || !names.contains(std::string(info.name))) continue;
    ++tried;
    INFO(info.name);
    const Kernel kernel = faulty_kernel(info);
    const auto recipe = shown_by(kernel, info.backward, judge);
    REQUIRE(recipe);
    const Localisation found = localise(kernel, law(info.backward), *recipe, judge, info.fault);
    INFO(to_text(found));
    CHECK(found.together.stage == stage_of(info.fault));
    CHECK(found.together.confidence > 0);
    CHECK(found.first_wrong.has_value());
  }
  CHECK(tried >= 80);
}

} // namespace

TEST_CASE("the stage of every fault of the forward pass in the list is named right, the fault itself left out of the fit") {
  expect_right_stages(false);
}

TEST_CASE("the stage of every fault of the backward pass in the list is named right, the fault itself left out of the fit") {
  expect_right_stages(true);
}

TEST_CASE("a fault that acts from the second chunk on only, or in one head only, has its stage named too") {
  const std::set<std::string_view> some{"approximate-exp",   "scores-bf16",    "first-order-inverse", "residual-bf16",
                                        "carry-decay-bf16",  "output-bf16",    "dg-sum-exclusive",    "da-wrong-sign",
                                        "dv-not-times-beta", "dq-scaled-twice"};
  Judge judge;
  std::size_t tried = 0;
  for (const FaultInfo& info : planted_faults())
    for (const char* place : {"chunk", "head"}) {
      if (!some.contains(info.name)) continue;
      ++tried;
      INFO(info.name << ", " << place);
      const Kernel kernel = faulty_kernel(info, placement(place));
      const auto recipe = shown_by(kernel, info.backward, judge);
      REQUIRE(recipe);
      const Localisation found = localise(kernel, law(info.backward), *recipe, judge, info.fault);
      INFO(to_text(found));
      CHECK(found.together.stage == stage_of(info.fault));
    }
  CHECK(tried == 2 * some.size());
}

TEST_CASE("a kernel that is right has no first wrong place, and no stage of the algorithm is named") {
  const Kernel kernel = faultless_kernel("right", "chunk=16 order=residual_first");
  const Recipe recipe = fitted(regime_named("gaussian-keys")->draw(64, Tier::quick), kernel.contract);
  const Problem problem = make_problem(recipe, input_formats(kernel.contract));
  Judge judge;
  CHECK_FALSE(first_wrong(kernel.contract, problem, run_forward(kernel, problem), judge));
  CHECK(localise(kernel, law(false), recipe, judge).together.stage == Stage::call);
}

TEST_CASE("the first wrong place is the first token and head that were changed") {
  const Kernel kernel = faultless_kernel("right", "chunk=16 order=residual_first");
  Recipe recipe = fitted(regime_named("gaussian-keys")->draw(64, Tier::quick), kernel.contract);
  recipe.shape = {.B = 1, .T = 40, .H = 1, .HV = 2, .K = 16, .V = 16};
  recipe.lengths.clear();
  const Problem problem = make_problem(recipe, input_formats(kernel.contract));
  Judge judge;
  Run run = run_forward(kernel, problem);
  const auto at = [&](std::int64_t token, std::int64_t head, std::int64_t j) {
    return static_cast<std::size_t>((token * 2 + head) * 16 + j);
  };
  for (std::int64_t token : {23, 24, 39}) run.o[at(token, 1, 5)] += 0.5f;
  run.o[at(30, 0, 0)] += 0.5f;
  run.final_state[7] += 1;
  const auto place = first_wrong(kernel.contract, problem, run, judge);
  REQUIRE(place);
  CHECK(*place == Place{.tensor = "o", .sequence = 0, .head = 1, .token = 23, .channel = 5, .chunk_position = 7});
}

TEST_CASE("the first wrong gradient is that of the last token and head that were changed") {
  const Kernel kernel = faultless_kernel("right", "chunk=16 order=residual_first");
  Recipe recipe = fitted(regime_named("gaussian-keys")->draw(64, Tier::quick), kernel.contract);
  recipe.shape = {.B = 1, .T = 40, .H = 1, .HV = 2, .K = 16, .V = 16};
  recipe.lengths.clear();
  const Problem problem = with_cotangents_in(make_problem(recipe, input_formats(kernel.contract)), kernel.contract.output);
  Judge judge;
  Run run = run_backward(kernel, problem);
  CHECK_FALSE(first_wrong_gradient(kernel.contract, problem, run, judge));
  std::vector<float>& dv = run.gradient[static_cast<std::size_t>(Input::v)];
  std::vector<float>& dg = run.gradient[static_cast<std::size_t>(Input::g)];
  for (std::size_t token : {3, 23}) dv[(token * 2 + 1) * 16 + 5] += 100;
  dg[(10 * 2 + 0) * 16 + 2] += 100;
  CHECK(first_wrong_gradient(kernel.contract, problem, run, judge) ==
        Place{.tensor = "dv", .sequence = 0, .head = 1, .token = 23, .channel = 5, .chunk_position = 7});
}

TEST_CASE("the reverse chunk that gradients are explained by is the derivation's") {
  Recipe recipe = regime_named("gaussian-keys")->draw(64, Tier::quick);
  recipe.shape = {.B = 1, .T = 12, .H = 1, .HV = 1, .K = 10, .V = 7};
  recipe.lengths.clear(), recipe.state = StatePattern::gaussian;
  const Problem problem = make_problem(recipe, {});
  const Gradients<double> exact = gradients_by_chunks<double>(problem, 12);
  const ReverseOutputs ours = reverse_chunk(reverse_inputs(problem), [](Midway, Matrix64&) {});
  const auto agrees = [&](Input input, const Matrix64& matrix) {
    REQUIRE(exact[input].size() == static_cast<std::size_t>(matrix.size()));
    for (Eigen::Index i = 0; i < matrix.rows(); ++i)
      for (Eigen::Index j = 0; j < matrix.cols(); ++j)
        CHECK(matrix(i, j) == Approx(exact[input][static_cast<std::size_t>(i * matrix.cols() + j)]).epsilon(1e-9).margin(1e-12));
  };
  agrees(Input::q, ours.dq), agrees(Input::k, ours.dk), agrees(Input::v, ours.dv), agrees(Input::g, ours.dg);
  agrees(Input::beta, ours.dbeta), agrees(Input::initial_state, ours.dS);
}
