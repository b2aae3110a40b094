#include "module_budget.hpp"

#include "../confidence.hpp"
#include "oracle_in_pieces.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <limits>
#include <tuple>
#include <utility>

namespace kdacheck {
namespace {

using modules::NamedTensor;
using modules::NamedTensors;
using Exact = std::vector<std::vector<double>>;

constexpr double smallest_fp32 = 0x1p-149;

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

/// A row of a tensor: the elements whose error is pooled.
struct Row {
  const Judged* list;
  std::size_t tensor, at, width;
};

std::string name_of(const Row& row) { return row.list->prefix + (*row.list->written)[row.tensor].name; }

double square_of(const Row& row, const ExactTensors& x, const ExactTensors& truth) {
  return row_square((x.*row.list->exact)[row.tensor], (truth.*row.list->exact)[row.tensor], row.at, row.width);
}

/// Second and fourth moments of a row's error over draws.
struct Spread {
  double second = 0, fourth = 0;
};

/// What a row may err by: with z of a known sigma, by which it is suspected, and with z for so few draws, by which it is refused.
struct RowBound {
  double screening = 0, deciding = 0;
};

using Perturbed = std::function<ExactTensors(const ModuleArithmetic&)>;

/// The largest bound over noise models and orders, from draws that no other number of draws has.
std::vector<RowBound> bounds_of(std::span<const Row> rows, const ExactTensors& truth, int orders, std::uint64_t first, int draws,
                                const Perturbed& perturbed) {
  std::vector<RowBound> bounds(rows.size());
  const auto groups = static_cast<std::int64_t>(rows.size());
  for (int order = 0; order < orders; ++order)
    for (const auto kind : {ModuleArithmetic::Kind::independent, ModuleArithmetic::Kind::grid}) {
      std::vector<Spread> spreads(rows.size());
      for (int draw = 0; draw < draws; ++draw) {
        const ExactTensors drawn = perturbed({kind, first + static_cast<std::uint64_t>(draw), order});
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const double square = square_of(rows[i], drawn, truth);
          spreads[i].second += square, spreads[i].fourth += square * square;
        }
      }
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const double sigma = std::sqrt(spreads[i].second / draws);
        if (!(sigma > 0)) continue;
        const double freedom = degrees_of_freedom(spreads[i].second, spreads[i].fourth, draws);
        bounds[i].screening = std::max(bounds[i].screening, confidence_factor(Group::gradient, groups, freedom, 0) * sigma);
        bounds[i].deciding = std::max(bounds[i].deciding, confidence_factor(Group::gradient, groups, freedom, draws) * sigma);
      }
    }
  for (RowBound& bound : bounds) bound.screening += smallest_fp32, bound.deciding += smallest_fp32; // underflow
  return bounds;
}

Finding misshapen(std::string tensor, std::string detail) {
  return {.verdict = Verdict::failed_property,
          .bound_util = std::numeric_limits<double>::infinity(),
          .place = Place{.tensor = std::move(tensor)},
          .detail = std::move(detail),
          .metrics = {}};
}

Finding judge(const ModuleCase& c, const modules::ModuleCotangents* cotangents, std::span<const Judged> lists, std::uint64_t seed,
              const Perturbed& perturbed) {
  const auto run = [&](ModuleArithmetic arithmetic) { return c.oracle.evaluate(c.call, cotangents, arithmetic); };
  const ExactTensors truth = run({ModuleArithmetic::Kind::long_double, 0, 0}), narrow = run({ModuleArithmetic::Kind::fp64, 0, 0});
  std::vector<Row> rows;
  for (const Judged& list : lists) {
    if ((truth.*list.exact).size() != list.written->size())
      return misshapen(list.prefix,
                       fmt::format("{} tensors were written, {} are wanted", list.written->size(), (truth.*list.exact).size()));
    for (std::size_t n = 0; n < list.written->size(); ++n) {
      const NamedTensor& tensor = (*list.written)[n];
      const std::string name = list.prefix + tensor.name;
      if ((truth.*list.exact)[n].size() != tensor.values.size())
        return misshapen(name, fmt::format("{} has {} numbers, which is not its shape", name, tensor.values.size()));
      for (std::size_t at = 0; at < tensor.values.size(); at += row_width(tensor)) rows.push_back({&list, n, at, row_width(tensor)});
    }
  }
  std::vector<double> errors, doubts;
  for (const Row& row : rows) {
    const std::vector<float>& values = (*row.list->written)[row.tensor].values;
    errors.push_back(std::sqrt(row_square({values.begin(), values.end()}, (truth.*row.list->exact)[row.tensor], row.at, row.width)));
    doubts.push_back(std::sqrt(square_of(row, narrow, truth)));
  }

  std::uint64_t first = seed * 1000003;
  const auto judged = [&](int draws, bool confirming) {
    const std::vector<RowBound> bounds = bounds_of(rows, truth, c.oracle.orders, first, draws, perturbed);
    first += static_cast<std::uint64_t>(draws);
    bool suspect = false;
    Finding worst;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto [screening, deciding] = bounds[i];
      const bool number = errors[i] <= screening || errors[i] > screening;
      Finding here{.verdict = Verdict::passed,
                   .bound_util = number ? errors[i] / screening : std::numeric_limits<double>::infinity(),
                   .place = Place{.tensor = name_of(rows[i])},
                   .detail = {},
                   .metrics = {}};
      here.place->row = static_cast<std::int64_t>(rows[i].at / rows[i].width);
      const bool doubtful = !(doubts[i] <= precise_enough * screening);
      if (!number && !doubtful)
        here.verdict = Verdict::failed_proved;
      else if (doubtful)
        here.verdict = Verdict::inconclusive;
      else if (here.bound_util > 1)
        here.verdict = confirming && errors[i] > deciding ? Verdict::failed_statistical : Verdict::inconclusive, suspect = true;
      if (here.verdict != Verdict::passed)
        here.detail = fmt::format("{}, row {}: error {:.3g}, fp32 allows {:.3g}{}", here.place->tensor, here.place->row, errors[i],
                                  screening, here.verdict == Verdict::failed_statistical ? ", confirmed with fresh noise" : "");
      worst = graver(std::move(worst), std::move(here));
    }
    return std::pair{worst, suspect && !is_failure(worst.verdict)};
  };
  auto [finding, suspect] = judged(screening_draws, false);
  for (int draws : confirming_draws)
    if (suspect) std::tie(finding, suspect) = judged(draws, true);
  return finding;
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
