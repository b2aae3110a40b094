#include "module_budget.hpp"

#include "../confidence.hpp"
#include "oracle_in_pieces.hpp"

#include <cmath>
#include <fmt/core.h>
#include <limits>

namespace kdacheck {
namespace {

using modules::NamedTensor;
using modules::NamedTensors;
using Exact = std::vector<std::vector<double>>;

constexpr int draws = 16;

/// Tensors of a result in one list, with what the oracle says of them.
struct Judged {
  const NamedTensors* written;
  Exact ExactTensors::*exact;
  const char* prefix;
};

/// Elements of a row: the last extent; a parameter is one row per leading index as well.
std::size_t row_width(const NamedTensor& tensor) {
  const std::int64_t last = tensor.shape.empty() ? 1 : tensor.shape.back();
  return static_cast<std::size_t>(last < 1 ? 1 : last);
}

double row_square(const std::vector<double>& x, const std::vector<double>& truth, std::size_t at, std::size_t width) {
  double sum = 0;
  for (std::size_t i = at; i < at + width; ++i) sum += (x[i] - truth[i]) * (x[i] - truth[i]);
  return sum / static_cast<double>(width);
}

/// Second and fourth moments of a row's error over draws.
struct Spread {
  double second = 0, fourth = 0;
};

Finding judge(const ModuleCase& c, const modules::ModuleCotangents* cotangents, std::span<const Judged> lists, std::uint64_t seed,
              const std::function<ExactTensors(const ModuleArithmetic&)>& perturbed) {
  const auto run = [&](ModuleArithmetic arithmetic) { return c.oracle.evaluate(c.call, cotangents, arithmetic); };
  const ExactTensors truth = run({ModuleArithmetic::Kind::long_double, 0, 0}), narrow = run({ModuleArithmetic::Kind::fp64, 0, 0});
  std::vector<std::vector<ExactTensors>> models;
  for (int order = 0; order < c.oracle.orders; ++order)
    for (const auto kind : {ModuleArithmetic::Kind::independent, ModuleArithmetic::Kind::grid}) {
      models.emplace_back();
      for (int draw = 0; draw < draws; ++draw)
        models.back().push_back(perturbed({kind, seed * 1000003 + static_cast<std::uint64_t>(draw), order}));
    }

  std::int64_t groups = 0;
  for (const Judged& list : lists)
    for (const NamedTensor& tensor : *list.written) groups += static_cast<std::int64_t>(tensor.values.size() / row_width(tensor));
  Finding worst;
  for (const Judged& list : lists) {
    if ((truth.*list.exact).size() != list.written->size())
      return {.verdict = Verdict::failed_property,
              .bound_util = std::numeric_limits<double>::infinity(),
              .place = Place{.tensor = list.prefix},
              .detail = fmt::format("{} tensors were written, {} are wanted", list.written->size(), (truth.*list.exact).size()),
              .metrics = {}};
    for (std::size_t n = 0; n < list.written->size(); ++n) {
      const NamedTensor& tensor = (*list.written)[n];
      const std::string name = list.prefix + tensor.name;
      if ((truth.*list.exact)[n].size() != tensor.values.size())
        return {.verdict = Verdict::failed_property,
                .bound_util = std::numeric_limits<double>::infinity(),
                .place = Place{.tensor = name},
                .detail = fmt::format("{} has {} numbers, which is not its shape", name, tensor.values.size()),
                .metrics = {}};
      const std::vector<double>& exact = (truth.*list.exact)[n];
      const std::vector<double> written(tensor.values.begin(), tensor.values.end());
      const std::size_t width = row_width(tensor);
      for (std::size_t at = 0; at < exact.size(); at += width) {
        double allowed = 0;
        for (const auto& model : models) {
          Spread spread;
          for (const ExactTensors& drawn : model) {
            const double square = row_square((drawn.*list.exact)[n], exact, at, width);
            spread.second += square, spread.fourth += square * square;
          }
          const double sigma = std::sqrt(spread.second / draws);
          if (!(sigma > 0)) continue;
          const double z = confidence_factor(Group::gradient, groups, degrees_of_freedom(spread.second, spread.fourth, draws), draws);
          allowed = std::max(allowed, z * sigma);
        }
        allowed += 0x1p-149; // the smallest fp32 number: underflow
        const double error = std::sqrt(row_square(written, exact, at, width));
        const double doubt = std::sqrt(row_square((narrow.*list.exact)[n], exact, at, width));
        const double use = error <= allowed || error > allowed ? error / allowed : std::numeric_limits<double>::infinity();
        Finding here{.verdict = use <= 1 ? Verdict::passed : Verdict::failed_statistical,
                     .bound_util = use,
                     .place = Place{.tensor = name},
                     .detail = {},
                     .metrics = {}};
        here.place->row = static_cast<std::int64_t>(at / width);
        if (!(doubt <= 1e-2 * allowed)) here.verdict = Verdict::inconclusive;
        if (here.verdict != Verdict::passed)
          here.detail = fmt::format("{}, row {}: error {:.3g}, fp32 allows {:.3g}", name, at / width, error, allowed);
        worst = graver(std::move(worst), std::move(here));
      }
    }
  }
  return worst;
}

} // namespace

Finding judge_module(const ModuleCase& c, const modules::ModuleResult& result, std::uint64_t seed, const Cuts& cuts) {
  const Judged lists[] = {{&result.outputs, &ExactTensors::outputs, ""}, {&result.states, &ExactTensors::states, "state "}};
  return judge(c, nullptr, lists, seed, [&](const ModuleArithmetic& arithmetic) {
    return cuts ? evaluated_in_pieces(c, nullptr, arithmetic, cuts, result.states) : c.oracle.evaluate(c.call, nullptr, arithmetic);
  });
}

Finding judge_module_gradients(const ModuleCase& c, const modules::ModuleGradients& gradients, std::uint64_t seed, const Cuts& cuts) {
  const Judged lists[] = {{&gradients.inputs, &ExactTensors::inputs, "d"},
                          {&gradients.parameters, &ExactTensors::parameters, "d"},
                          {&gradients.states, &ExactTensors::initials, "d state "}};
  return judge(c, &c.cotangents, lists, seed, [&](const ModuleArithmetic& arithmetic) {
    return cuts ? evaluated_in_pieces(c, &c.cotangents, arithmetic, cuts, c.cotangents.states)
                : c.oracle.evaluate(c.call, &c.cotangents, arithmetic);
  });
}

} // namespace kdacheck
