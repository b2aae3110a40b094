// A suspect is judged again with fresh noise and more draws: refused, cleared or left open.

#include "../compare.hpp"
#include "../judge.hpp"
#include "drawn_problem.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include <algorithm>
#include <map>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

constexpr int many_draws = 2048; // sigma to 1.6 %

const Contract& contract() {
  static const Contract bf16 = *parse_contract("operands=bf16 chunk=16").contract;
  return bf16;
}

Run right_by_construction(const Problem& problem) {
  const Truth truth = gradient_truth(problem, Arithmetic::double_double);
  Run run;
  for (double x : truth.o.value) run.o.push_back(static_cast<float>(x));
  for (double x : truth.final_state.value) run.final_state.push_back(static_cast<float>(x));
  for (Input input : all_inputs)
    for (double x : truth[input].value) run.gradient[static_cast<std::size_t>(input)].push_back(static_cast<float>(x));
  return run;
}

/// Elements of one group of a tensor.
struct Elements {
  const char* name;
  std::vector<float>& (*tensor)(Run&);
  std::int64_t first, count, stride;
  bool backward;
};

std::vector<Elements> some_groups(const Problem& problem) {
  const auto [B, T, H, HV, K, V] = problem.shape;
  const auto o = [](Run& run) -> std::vector<float>& { return run.o; };
  const auto state = [](Run& run) -> std::vector<float>& { return run.final_state; };
  const auto dv = [](Run& run) -> std::vector<float>& { return run.gradient[static_cast<std::size_t>(Input::v)]; };
  const auto dk = [](Run& run) -> std::vector<float>& { return run.gradient[static_cast<std::size_t>(Input::k)]; };
  return {{"token", o, 17 * V, V, 1, false},       {"channel", o, 3, T, V, false}, {"state row", state, 5 * V, V, 1, false},
          {"state column", state, 7, K, V, false}, {"dv", dv, 9 * V, V, 1, true},  {"dk", dk, 21 * K, K, 1, true}};
}

Run with_noise(Run run, const Elements& group, double size) {
  for (std::int64_t i = 0; i < group.count; ++i)
    group.tensor(run)[static_cast<std::size_t>(group.first + i * group.stride)] += static_cast<float>((i % 2 ? -1 : 1) * size);
  return run;
}

/// Everything to judge one problem with.
struct Bench {
  Problem problem = draw({});
  Run right = right_by_construction(problem);
  Truth truth = gradient_truth(problem);
  Judge judge;
  std::map<std::pair<bool, int>, Budget> known;

  Comparison compared(const Run& run, const Budget& budget, bool backward) const {
    return backward ? compare_backward(contract(), problem, truth, budget, run) : compare_forward(contract(), problem, truth, budget, run);
  }
  Comparison compared(const Run& run, int draws, bool backward) {
    return compared(run, backward ? *judge.gradient_budget(contract(), problem, draws) : *judge.forward_budget(contract(), problem, draws),
                    backward);
  }
  const Budget& well_known(bool backward) {
    auto [at, fresh] = known.try_emplace({backward, many_draws});
    if (fresh)
      at->second = backward ? gradient_budget(contract(), problem, truth, 4711, many_draws)
                            : forward_budget(contract(), problem, truth, 4711, many_draws);
    return at->second;
  }
  /// The multiple of noise at which the group's error is so many times its bound, sigma well known.
  double size_at(const Elements& group, double times) {
    double small = 1e-9, large = 1e3;
    while (large / small > 1.0005) {
      const double size = std::sqrt(small * large);
      (compared(with_noise(right, group, size), well_known(group.backward), group.backward).screening < times ? small : large) = size;
    }
    return small;
  }
  Finding judged(const Elements& group, double size) {
    const Run run = with_noise(right, group, size);
    return group.backward ? judge.backward(contract(), problem, run) : judge.forward(contract(), problem, run);
  }
};

Bench& bench() {
  static Bench one;
  return one;
}

/// The verdict by its rule: what 8 draws suspect, 32 and then 128 refuse, clear or leave to the next.
Verdict due(const Elements& group, double size) {
  const Run run = with_noise(bench().right, group, size);
  if (bench().compared(run, screening_draws, group.backward).screening <= 1) return Verdict::passed;
  for (int draws : {32, 128}) {
    const Comparison c = bench().compared(run, draws, group.backward);
    if (c.screening <= 1) return Verdict::passed;
    if (c.deciding > 1) return Verdict::failed_statistical;
  }
  return Verdict::inconclusive;
}

/// Correlation, over the groups, of how far two budgets err from a third that errs little.
double correlation(const std::vector<double>& one, const std::vector<double>& other, const std::vector<double>& known) {
  double n = 0, x = 0, y = 0, xx = 0, yy = 0, xy = 0;
  for (std::size_t i = 0; i < known.size(); ++i) {
    if (!(known[i] > 0)) continue;
    const double a = std::log(one[i] / known[i]), b = std::log(other[i] / known[i]);
    n += 1, x += a, y += b, xx += a * a, yy += b * b, xy += a * b;
  }
  return (n * xy - x * y) / std::sqrt((n * xx - x * x) * (n * yy - y * y));
}

} // namespace

TEST_CASE("what 8 draws suspect is refused, cleared or left open by 32 and 128 fresh ones, never by the 8") {
  int cleared = 0, open = 0, refused = 0, refused_late = 0;
  for (const Elements& group : some_groups(bench().problem))
    for (double times = 0.94; times < 1.26; times += 0.02) {
      const double size = bench().size_at(group, times);
      const Run run = with_noise(bench().right, group, size);
      const double suspected = bench().compared(run, screening_draws, group.backward).screening;
      const Finding finding = bench().judged(group, size);
      INFO(group.name << " at " << times << " of its bound, by 8 draws at " << suspected << ": " << name(finding.verdict));
      CHECK(finding.verdict == due(group, size));
      if (suspected <= 1) continue;
      cleared += finding.verdict == Verdict::passed, open += finding.verdict == Verdict::inconclusive;
      if (!is_failure(finding.verdict)) continue;
      ++refused;
      refused_late += bench().compared(run, 32, group.backward).deciding <= 1;
      CHECK(finding.detail.find("confirmed with fresh noise") != std::string::npos);
    }
  INFO("cleared " << cleared << ", left open " << open << ", refused " << refused << ", of these by 128 draws " << refused_late);
  CHECK(cleared > 0);
  CHECK(open > 0);
  CHECK(refused > refused_late);
  CHECK(refused_late > 0);
}

TEST_CASE("errors well within their bounds pass, also those of the tokens whose bound 8 draws put too low") {
  const std::int64_t V = bench().problem.shape.V;
  const auto few = bench().judge.forward_budget(contract(), bench().problem);
  const std::vector<double>&drawn = few->output.token, &known = bench().well_known(false).output.token;
  std::vector<std::int64_t> tokens;
  for (std::int64_t t = 0; t < static_cast<std::int64_t>(known.size()); ++t) tokens.push_back(t);
  std::ranges::sort(tokens, {}, [&](std::int64_t t) { return drawn[static_cast<std::size_t>(t)] / known[static_cast<std::size_t>(t)]; });
  int suspects = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    const Elements token{"token", [](Run& run) -> std::vector<float>& { return run.o; }, tokens[i] * V, V, 1, false};
    for (double times : {0.85, 0.9, 0.95}) {
      const double size = bench().size_at(token, times);
      INFO("token " << tokens[i] << " at " << times << " of its bound");
      CHECK(bench().judged(token, size).verdict == Verdict::passed);
      suspects += bench().compared(with_noise(bench().right, token, size), screening_draws, false).screening > 1;
    }
  }
  CHECK(suspects > 0);
}

TEST_CASE("budgets of 8, 32 and 128 draws have no draw in common") {
  Drawn drawn;
  drawn.shape.T = 512;
  const Problem problem = draw(drawn);
  Judge judge;
  const Truth truth = gradient_truth(problem);
  const Budget forward = forward_budget(contract(), problem, truth, 4711, 512),
               backward = gradient_budget(contract(), problem, truth, 4711, 512);
  const auto v = static_cast<std::size_t>(Input::v);
  for (auto [few, many] : {std::pair{8, 32}, {32, 128}}) {
    const double tokens = correlation(judge.forward_budget(contract(), problem, few)->output.token,
                                      judge.forward_budget(contract(), problem, many)->output.token, forward.output.token),
                 gradients = correlation(judge.gradient_budget(contract(), problem, few)->gradient[v].fine,
                                         judge.gradient_budget(contract(), problem, many)->gradient[v].fine, backward.gradient[v].fine);
    INFO(few << " and " << many << " draws: o " << tokens << ", dv " << gradients);
    CHECK(std::fabs(tokens) < 0.3); // a quarter of the draws in common: 1/2
    CHECK(std::fabs(gradients) < 0.3);
  }
}
