// The oracle of the gating module against dual numbers, which share its forward pass and nothing of its reverse mode.

#include "../gating.hpp"
#include "dual.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>
#include <random>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

namespace {

std::mt19937_64 bits(71);
double draw() { return static_cast<double>(static_cast<int>(bits() % 65) - 32) / 16; }

Matrix<Real> random_matrix(std::int64_t rows, std::int64_t columns) {
  return matrix_of<Real>(rows, columns, [](std::int64_t, std::int64_t) { return Real(draw()); });
}
std::vector<Real> random_vector(std::size_t size) {
  std::vector<Real> values(size);
  for (Real& x : values) x = draw();
  return values;
}

LowRankGate<Real> random_module(GateForm form, std::int64_t columns_per_head) {
  const std::int64_t heads = 2, W = heads * columns_per_head;
  LowRankGate<Real> module{.form = form,
                           .lower_bound = Real(-5.0),
                           .columns_per_head = columns_per_head,
                           .x = random_matrix(4, 5),
                           .down = random_matrix(5, 2),
                           .up = random_matrix(2, W),
                           .A_log = {},
                           .dt_bias = {}};
  if (form == GateForm::sigmoid) return module;
  module.A_log = random_vector(static_cast<std::size_t>(heads));
  module.dt_bias = random_vector(static_cast<std::size_t>(W));
  return module;
}

std::vector<Dual<Real>> along(const std::vector<Real>& x, const std::vector<Real>& direction) {
  std::vector<Dual<Real>> result;
  for (std::size_t i = 0; i < x.size(); ++i) result.emplace_back(x[i], direction[i]);
  return result;
}
Matrix<Dual<Real>> along(const Matrix<Real>& x, const Matrix<Real>& direction) {
  Matrix<Dual<Real>> result(x.rows, x.columns);
  result.element = along(x.element, direction.element);
  return result;
}

/// Adds the inner product of a gradient and a direction, and the size of its terms.
void add(const std::vector<Real>& gradient, const std::vector<Real>& direction, Real& sum, Real& size) {
  REQUIRE(gradient.size() == direction.size());
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    sum += gradient[i] * direction[i];
    size += abs(gradient[i] * direction[i]);
  }
}

} // namespace

TEST_CASE("the gating oracle's gradients are those of dual numbers, for every form and both widths") {
  for (GateForm form : {GateForm::sigmoid, GateForm::softplus, GateForm::bounded})
    for (std::int64_t columns_per_head : {1, 3})
      for (int trial = 0; trial < 5; ++trial) {
        const LowRankGate<Real> module = random_module(form, columns_per_head), direction = random_module(form, columns_per_head);
        const Matrix<Real> cotangent = random_matrix(module.x.rows, module.up.columns);
        const LowRankGate<Dual<Real>> tangent{.form = form,
                                              .lower_bound = Dual<Real>(-5.0),
                                              .columns_per_head = columns_per_head,
                                              .x = along(module.x, direction.x),
                                              .down = along(module.down, direction.down),
                                              .up = along(module.up, direction.up),
                                              .A_log = along(module.A_log, direction.A_log),
                                              .dt_bias = along(module.dt_bias, direction.dt_bias)};
        Real forward = 0, reverse = 0, size = 0;
        const auto gates = low_rank_gates(tangent);
        for (std::size_t i = 0; i < gates.size(); ++i) forward += cotangent.element[i] * gates[i].log_decay.slope;
        const LowRankGateGradients<Real> d = low_rank_gates_reverse(module, cotangent);
        add(d.x.element, direction.x.element, reverse, size);
        add(d.down.element, direction.down.element, reverse, size);
        add(d.up.element, direction.up.element, reverse, size);
        add(d.A_log, direction.A_log, reverse, size);
        add(d.dt_bias, direction.dt_bias, reverse, size);
        // 50 digits are 2^-166; 40 bits pay for some hundred roundings and for cancellation among terms of order one
        CHECK(abs(forward - reverse) <= size * Real(0x1p-126));
        CHECK(size > 0);
      }
}
