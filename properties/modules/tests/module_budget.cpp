// A module's error is suspected by few perturbed runs and refused by more of them, with fresh noise.

#include "../module_budget.hpp"

#include "../../confidence.hpp"
#include "../in_arithmetic.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include <limits>
#include <map>
#include <set>

using namespace kdacheck;

namespace {

constexpr std::int64_t rows = 6;

/// Sums of 40 products, of which fp32 may lose some bits; every evaluation is counted by its noise.
struct Sums {
  std::int64_t width = 24;
  std::map<std::pair<int, std::uint64_t>, int> drawn{}; ///< (kind, seed) -> evaluations

  ExactTensors operator()(const ModuleArithmetic& arithmetic) {
    ++drawn[{static_cast<int>(arithmetic.kind), arithmetic.seed}];
    return in_arithmetic(arithmetic, [this]<class N>() {
      ExactTensors result;
      result.outputs.emplace_back();
      for (std::int64_t i = 0; i < rows * width; ++i) {
        N sum(0.0);
        for (int term = 1; term <= 40; ++term) sum = sum + N(std::sin(static_cast<double>(i * 40 + term))) * N(1.0 / term);
        result.outputs[0].push_back(static_cast<double>(sum));
      }
      return result;
    });
  }
  int of(ModuleArithmetic::Kind kind) const {
    int count = 0;
    for (const auto& [at, evaluations] : drawn) count += at.first == static_cast<int>(kind) ? evaluations : 0;
    return count;
  }
};

/// What a module wrote that is wrong by so many standard deviations of fp32 in one row.
struct Written {
  Sums sums;
  ModuleCase c{
      .module = {}, .oracle = {}, .call = {.cu_seqlens = {0, rows}, .inputs = {}, .parameters = {}, .states = {}}, .cotangents = {}};
  modules::ModuleResult result;
  double sigma = 0; ///< of that row, from very many runs

  explicit Written(std::int64_t width = 24) : sums{.width = width}, width_(width) {
    c.oracle.evaluate = [this](const modules::ModuleCall&, const modules::ModuleCotangents*, const ModuleArithmetic& arithmetic) {
      return sums(arithmetic);
    };
    exact_ = sums({ModuleArithmetic::Kind::long_double, 0, 0}).outputs[0];
    for (const auto kind : {ModuleArithmetic::Kind::independent, ModuleArithmetic::Kind::grid}) {
      double squares = 0;
      constexpr int runs = 4000;
      for (int run = 0; run < runs; ++run) {
        const auto drawn = sums({kind, 77'000'000ull + static_cast<std::uint64_t>(run), 0}).outputs[0];
        for (std::int64_t i = row_ * width_; i < (row_ + 1) * width_; ++i)
          squares += (drawn[static_cast<std::size_t>(i)] - exact_[static_cast<std::size_t>(i)]) *
                     (drawn[static_cast<std::size_t>(i)] - exact_[static_cast<std::size_t>(i)]);
      }
      sigma = std::max(sigma, std::sqrt(squares / runs / static_cast<double>(width_)));
    }
  }
  Finding judged(double sigmas, std::uint64_t seed) {
    result.outputs = {{"sums", {rows, width_}, std::vector<float>(exact_.begin(), exact_.end())}};
    for (std::int64_t i = row_ * width_; i < (row_ + 1) * width_; ++i)
      result.outputs[0].values[static_cast<std::size_t>(i)] += static_cast<float>((i % 2 ? 1 : -1) * sigmas * sigma);
    sums.drawn.clear();
    return judge_module(c, result, seed);
  }

  /// Perturbed runs in one noise model.
  int runs() const { return sums.of(ModuleArithmetic::Kind::independent); }
  /// z of a known sigma for a single number that errs as one Gaussian does.
  double largest() const { return confidence_factor(Group::gradient, rows, 1, 0); }

private:
  static constexpr std::int64_t row_ = 2;
  std::int64_t width_;
  std::vector<double> exact_;
};

} // namespace

TEST_CASE("an error that fp32 explains passes by few runs, and one that it does not is refused by more, none of which ran before") {
  Written written;
  CHECK(written.judged(2, 1).verdict == Verdict::passed);
  CHECK(written.runs() == screening_draws);
  const Finding refused = written.judged(8, 1);
  CHECK(refused.verdict == Verdict::failed_statistical);
  CHECK(refused.bound_util > 1.5);
  CHECK(refused.place->tensor == "sums");
  CHECK(refused.place->row == 2);
  CHECK(refused.detail.find("confirmed with fresh noise") != std::string::npos);
  CHECK(written.runs() == screening_draws + confirming_draws[0]);
  for (const auto& [noise, evaluations] : written.sums.drawn) CHECK(evaluations == 1);
}

TEST_CASE("of errors just within the bound some are suspected by few runs, and all pass in the end") {
  Written written;
  int cleared = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const Finding finding = written.judged(3.7, seed);
    INFO("seed " << seed << ": " << finding.detail);
    CHECK(finding.verdict == Verdict::passed);
    cleared += written.runs() > screening_draws;
  }
  CHECK(cleared > 0);
}

TEST_CASE("of an error near the bound of a single number the most runs may not tell whether it is beyond: it is left open") {
  Written written(1);
  int open = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed)
    for (double times : {0.75, 0.95, 1.05, 1.8}) {
      const Finding finding = written.judged(times * written.largest(), seed);
      INFO("seed " << seed << ", " << times << " times the bound: " << name(finding.verdict) << ", " << finding.detail);
      open += finding.verdict == Verdict::inconclusive;
      if (finding.verdict == Verdict::inconclusive) CHECK(written.runs() == screening_draws + confirming_draws[0] + confirming_draws[1]);
      if (times < 0.8) CHECK_FALSE(is_failure(finding.verdict));
      if (times > 1.5) CHECK(is_failure(finding.verdict));
    }
  CHECK(open > 0);
}

TEST_CASE("a number that is not finite needs no further run, and a tensor of another size none at all") {
  Written written;
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    written.judged(0, 1);
    written.result.outputs[0].values[5 * 24 + 3] = bad;
    written.sums.drawn.clear();
    const Finding finding = judge_module(written.c, written.result, 1);
    CHECK(is_failure(finding.verdict));
    CHECK(finding.place->row == 5);
    CHECK((std::isinf(bad) || written.runs() == screening_draws));
  }
  written.result.outputs[0].values.pop_back();
  CHECK(judge_module(written.c, written.result, 1).verdict == Verdict::failed_property);
}
