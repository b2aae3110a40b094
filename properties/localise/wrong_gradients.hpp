#pragma once
// The gradients that a kernel wrote for one chunk, in spreads of its contract from what is exact, and how much of their errors is left
// once a quantity on the way may be another.

#include "../../kernels/faults/stages.hpp"
#include "../budget.hpp"
#include "../perturbed/reverse_chunk.hpp"
#include "../run.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kdacheck {

/// What is left of a gradient's error once a quantity may differ, as a share of it: below this it is explained.
inline constexpr double explained = 0.15;
/// Errors up to so many spreads of the contract are no errors.
inline constexpr double noise = 6;
/// More unknown numbers than this take too long to fit.
inline constexpr std::int64_t most_unknowns = 420;

/// How a quantity may differ.
enum class Freedom : std::uint8_t { factor, row_factors, diagonal, lower, any, of_reads, along_k };

struct Site {
  Midway where;
  Freedom freedom;
  Stage stage;
  const char* what;
};

/// Inputs of the reverse chunk that may be others, with the forward chunk made from them.
struct InputSite {
  Matrix64 ReverseInputs::*matrix;
  Stage stage;
  const char* what;
};
/// Errors of all gradients of one chunk, in spreads of the contract.
class WrongGradients {
public:
  WrongGradients(const Problem& chunk, const Truth& truth, const Budget& budget, const Run& run) : in_(reverse_inputs(chunk)) {
    static const std::pair<Input, Matrix64 ReverseOutputs::*> all[]{
        {Input::q, &ReverseOutputs::dq}, {Input::k, &ReverseOutputs::dk},       {Input::v, &ReverseOutputs::dv},
        {Input::g, &ReverseOutputs::dg}, {Input::beta, &ReverseOutputs::dbeta}, {Input::initial_state, &ReverseOutputs::dS}};
    exact_ = reverse_chunk(in_, [](Midway, Matrix64&) {});
    for (const auto& [input, member] : all) {
      const auto i = static_cast<std::size_t>(input);
      const std::vector<float>& written = run.gradient[i];
      if (written.empty()) continue;
      Part part{.name = "d" + std::string(name(input)), .member = member, .first = static_cast<std::int64_t>(error_.size()), .count = 0};
      const Matrix64& matrix = exact_.*member;
      const std::vector<double>& spread = budget.gradient[i].fine;
      double size = 0;
      for (double x : truth[input].value) size += x * x;
      size = std::sqrt(size / std::max<double>(1, static_cast<double>(written.size())));
      for (std::size_t e = 0; e < written.size(); ++e) {
        const double s = (spread.empty() ? 0 : spread[e * spread.size() / written.size()]) + truth[input].radius[e];
        spread_.push_back(std::max(s, 1e-12 * size + 1e-38));
        error_.push_back((static_cast<double>(written[e]) - truth[input].value[e]) / spread_.back());
        relative_ = std::max(relative_, relative(static_cast<double>(written[e]) - truth[input].value[e], truth[input].value[e], s));
      }
      part.count = matrix.size(), part.columns = matrix.cols();
      part.excess = excess(error_, part);
      parts_.push_back(part);
    }
    base_ = flattened(exact_);
  }

  bool usable() const {
    return base_.size() == static_cast<Eigen::Index>(error_.size()) &&
           std::ranges::all_of(error_, [](double x) { return std::isfinite(x); }) && base_.allFinite();
  }
  std::string wrong_ones() const {
    std::string names;
    for (const Part& part : parts_)
      if (part.excess > noise) names += (names.empty() ? "" : ", ") + part.name;
    return names;
  }
  std::int64_t wrong_parts() const {
    return std::ranges::count_if(parts_, [](const Part& part) { return part.excess > noise; });
  }
  double largest_excess() const {
    double largest = 0;
    for (const Part& part : parts_) largest = std::max(largest, part.excess);
    return largest;
  }
  /// In no row of a wrong gradient are more than a quarter of the elements wrong; a row of fewer than four cannot tell.
  bool errs_in_single_channels() const {
    for (const Part& part : parts_) {
      if (!(part.excess > noise)) continue;
      if (part.columns < 4) return false;
      for (std::int64_t row = 0; row * part.columns < part.count; ++row) {
        const auto first = error_.begin() + part.first + row * part.columns;
        const auto size = [](double x) { return std::abs(x); };
        const double largest = size(*std::max_element(first, first + part.columns, [&](double x, double y) { return size(x) < size(y); }));
        if (largest <= noise) continue;
        if (4 * std::count_if(first, first + part.columns, [&](double x) { return size(x) > 0x1p-10 * largest + 1; }) > part.columns)
          return false;
      }
    }
    return true;
  }
  bool only(std::string_view name) const { return wrong_ones() == name; }
  /// Largest |error| / |value| beyond noise.
  double largest_relative_error() const { return relative_; }

  struct Fit {
    bool tried = false, explains = false;
    double left = 1; ///< largest share left in a wrong gradient
    std::int64_t unknowns = 0;
    Eigen::VectorXd solution;
  };

  /// Numbers that an explanation has to choose.
  std::int64_t unknowns_of(const Site& site) const { return unknowns_of(site, quantity_at(site.where)); }
  std::int64_t unknowns_of(const InputSite& site) const { return (in_.*site.matrix).size(); }

  Fit fit(const Site& site) const {
    const Matrix64 quantity = quantity_at(site.where);
    const std::int64_t n = in_.q.rows(), columns = quantity.cols(), unknowns = unknowns_of(site, quantity);
    if (site.where == Midway::inverse && in_.v.cols() < n + 4) return {};
    if (site.freedom == Freedom::of_reads && in_.v.cols() < n + 4) return {};
    const auto changed = [&](std::int64_t which, Matrix64& q) {
      const auto pair_of = [&](auto&& use) {
        for (std::int64_t i = 0, at = 0; i < n; ++i)
          for (std::int64_t j = 0; j <= i; ++j, ++at)
            if (at == which) use(i, j);
      };
      switch (site.freedom) {
      case Freedom::factor: q *= 2; break;
      case Freedom::row_factors: q.row(which) *= 2; break;
      case Freedom::diagonal: q(which, which) += 1; break;
      case Freedom::along_k: q.row(which) += in_.k.row(which); break;
      case Freedom::lower: pair_of([&](std::int64_t i, std::int64_t j) { q(i, j) += 1; }); break;
      case Freedom::of_reads: pair_of([&](std::int64_t i, std::int64_t j) { q.row(j) += in_.d_o.row(i); }); break;
      case Freedom::any: q(which / columns, which % columns) += 1; break;
      }
    };
    return solved(
        unknowns,
        [&](std::int64_t which) {
          return flattened(reverse_chunk(in_, [&](Midway where, Matrix64& q) {
            if (where == site.where) changed(which, q);
          }));
        },
        1);
  }

  Fit fit(const InputSite& site) const {
    const Matrix64& matrix = in_.*site.matrix;
    const double step =
        1e-6 * std::max(1e-30, std::sqrt(matrix.squaredNorm() / static_cast<double>(std::max<Eigen::Index>(1, matrix.size()))) +
                                   (site.matrix == &ReverseInputs::G ? 1 : 0));
    return solved(
        matrix.size(),
        [&](std::int64_t which) {
          ReverseInputs other = in_;
          (other.*site.matrix)(which / matrix.cols(), which % matrix.cols()) += step;
          return flattened(reverse_chunk(other, [](Midway, Matrix64&) {}));
        },
        step);
  }

  Fit fit_beta() const {
    return solved(
        in_.beta.size(),
        [&](std::int64_t which) {
          ReverseInputs other = in_;
          other.beta[which] += 1e-6;
          return flattened(reverse_chunk(other, [](Midway, Matrix64&) {}));
        },
        1e-6);
  }

  /// Of a fit of dU or dZ: the largest relative change of an element that it takes.
  double relative_change(Midway where, const Fit& fit) const {
    double largest = 0;
    reverse_chunk(in_, [&](Midway at, Matrix64& q) {
      if (at != where) return;
      const double size = std::sqrt(q.squaredNorm() / static_cast<double>(q.size()));
      for (std::int64_t i = 0; i < q.size(); ++i)
        largest = std::max(largest, std::abs(fit.solution[i]) / (std::abs(q(i / q.cols(), i % q.cols())) + 1e-3 * size));
    });
    return largest;
  }

private:
  Matrix64 quantity_at(Midway which) const {
    Matrix64 quantity;
    reverse_chunk(in_, [&](Midway where, Matrix64& q) {
      if (where == which) quantity = q;
    });
    return quantity;
  }
  std::int64_t unknowns_of(const Site& site, const Matrix64& quantity) const {
    const std::int64_t n = in_.q.rows();
    switch (site.freedom) {
    case Freedom::factor: return 1;
    case Freedom::row_factors:
    case Freedom::diagonal:
    case Freedom::along_k: return n;
    case Freedom::lower:
    case Freedom::of_reads: return n * (n + 1) / 2;
    case Freedom::any: return quantity.size();
    }
    return 0;
  }

  struct Part {
    std::string name;
    Matrix64 ReverseOutputs::*member;
    std::int64_t first, count, columns = 1;
    double excess = 0;
  };

  static double relative(double error, double value, double spread) {
    return std::abs(error) <= 6 * spread ? 0 : std::abs(error) / std::max(std::abs(value), 1e-300);
  }

  /// Largest root mean square of a row.
  template <class Numbers> static double excess(const Numbers& numbers, const Part& part) {
    double worst = 0;
    for (std::int64_t row = 0; row * part.columns < part.count; ++row) {
      double sum = 0;
      for (std::int64_t c = 0; c < part.columns; ++c) {
        const double x = numbers[static_cast<std::size_t>(part.first + row * part.columns + c)];
        sum += x * x;
      }
      if (!(std::sqrt(sum / static_cast<double>(part.columns)) <= worst)) worst = std::sqrt(sum / static_cast<double>(part.columns));
    }
    return worst;
  }

  Eigen::VectorXd flattened(const ReverseOutputs& outputs) const {
    std::int64_t size = 0;
    for (const Part& part : parts_) size += part.count;
    Eigen::VectorXd all(size);
    std::int64_t at = 0;
    for (const Part& part : parts_) {
      const Matrix64& matrix = outputs.*part.member;
      for (std::int64_t i = 0; i < part.count; ++i) all[at + i] = matrix(i / part.columns, i % part.columns);
      at += part.count;
    }
    return all;
  }

  template <class Changed> Fit solved(std::int64_t unknowns, Changed changed, double step) const {
    const auto m = static_cast<std::int64_t>(error_.size());
    if (unknowns > most_unknowns || 2 * unknowns > m) return {};
    const auto spread = Eigen::Map<const Eigen::VectorXd>(spread_.data(), m);
    Matrix64 A(m, unknowns);
    for (std::int64_t u = 0; u < unknowns; ++u) A.col(u) = (changed(u) - base_).cwiseQuotient(spread) / step;
    Fit fit{.tried = true, .explains = false, .left = 0, .unknowns = unknowns, .solution = {}};
    const auto B = Eigen::Map<const Eigen::VectorXd>(error_.data(), m);
    if (!A.allFinite()) return {};
    const Eigen::VectorXd size = A.colwise().norm();
    if (!(size.maxCoeff() > 0)) return {};
    const Eigen::VectorXd scale = size.unaryExpr([](double x) { return x > 0 ? 1 / x : 0.0; });
    fit.solution = scale.asDiagonal() * (A * scale.asDiagonal()).colPivHouseholderQr().solve(B);
    const Eigen::VectorXd left = B - A * fit.solution;
    fit.explains = left.allFinite();
    for (const Part& part : parts_) {
      const double rest = excess(left, part);
      if (part.excess > noise) fit.left = std::max(fit.left, rest / part.excess);
      if (!(rest <= std::max(noise, explained * part.excess))) fit.explains = false;
    }
    return fit;
  }

  ReverseInputs in_;
  ReverseOutputs exact_;
  Eigen::VectorXd base_;
  std::vector<Part> parts_;
  std::vector<double> error_, spread_;
  double relative_ = 0;
};

} // namespace kdacheck
