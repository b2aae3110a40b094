// The stack's adjoint against differences along random directions of every tensor of every layer, at 50 digits; a stack whose
// mixers give nothing is the identity.

#include "../hybrid.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>
#include <functional>
#include <random>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

namespace {

std::mt19937_64 bits(16180);
Matrix<Real> random_matrix(std::int64_t rows, std::int64_t columns) {
  return matrix_of<Real>(rows, columns, [](std::int64_t, std::int64_t) {
    return Real(static_cast<double>(static_cast<std::int64_t>(bits()) >> 20) * 0x1p-43);
  });
}
std::vector<Real> random_vector(std::int64_t size) { return random_matrix(1, size).element; }

constexpr std::int64_t D = 4;
const HybridForm form{.latent = {false, true, false},
                      .kda = {.H = 1, .HV = 2, .K = 2, .V = 3, .conv_width = 2, .scale = 0.7},
                      .mla = {.H = 2, .K = 2, .K_shared = 1, .V = 2, .rank = 3, .scale = 0.6}};

using Memories = std::vector<HybridMemory<Real>>;
Memories random_memory(std::int64_t rows) {
  Memories memory(3);
  for (std::size_t l : {0, 2}) {
    memory[l].kda = {random_matrix(1, 2), random_matrix(1, 2), random_matrix(1, 6), {}};
    for (int h = 0; h < 2; ++h) memory[l].kda.heads.push_back(layer_detail::as_state(random_matrix(2, 3)));
  }
  memory[1].mla = random_matrix(rows, 4);
  return memory;
}

struct Point {
  std::vector<HybridTensors<Real>> p;
  Matrix<Real> x;
  Memories start;
};
Point random_point(std::int64_t T, std::int64_t past) {
  Point point{std::vector<HybridTensors<Real>>(3), random_matrix(T, D), random_memory(past)};
  for (std::size_t l = 0; l < 3; ++l) point.p[l].norm = random_vector(D);
  for (std::size_t l : {0, 2})
    point.p[l].kda = {.q_proj = random_matrix(D, 2),
                      .k_proj = random_matrix(D, 2),
                      .v_proj = random_matrix(D, 6),
                      .q_conv = {random_matrix(2, 2), {}},
                      .k_conv = {random_matrix(2, 2), {}},
                      .v_conv = {random_matrix(6, 2), {}},
                      .f_down = random_matrix(D, 2),
                      .f_up = random_matrix(2, 4),
                      .A_log = random_vector(2),
                      .dt_bias = random_vector(4),
                      .b_proj = random_matrix(D, 2),
                      .g_down = random_matrix(D, 2),
                      .g_up = random_matrix(2, 6),
                      .g_bias = random_vector(6),
                      .o_norm = random_vector(3),
                      .o_proj = random_matrix(6, D)};
  point.p[1].mla = {.q_proj = random_matrix(D, 6),
                    .kv_down = random_matrix(D, 3),
                    .kv_norm = random_vector(3),
                    .kv_up = random_matrix(3, 8),
                    .k_shared = random_matrix(D, 1),
                    .o_proj = random_matrix(4, D)};
  return point;
}
/// Some tensor of every kind in every layer, x and what the layers remember.
void for_each(Point& a, const std::function<void(const char*, std::vector<Real>&)>& visit) {
  visit("x", a.x.element);
  for (HybridTensors<Real>& p : a.p) {
    visit("norm", p.norm), visit("q_proj", p.kda.q_proj.element), visit("A_log", p.kda.A_log), visit("o_proj", p.kda.o_proj.element);
    visit("mla q_proj", p.mla.q_proj.element), visit("kv_norm", p.mla.kv_norm), visit("mla o_proj", p.mla.o_proj.element);
  }
  for (HybridMemory<Real>& m : a.start) {
    visit("history", m.kda.v_conv.element), visit("cache", m.mla.element);
    for (State<Real>& S : m.kda.heads) visit("memory", S.element);
  }
}
Real inner(const std::vector<Real>& a, const std::vector<Real>& b) {
  Real sum(0.0);
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

} // namespace

TEST_CASE("the gradient of a stack is the slope of the loss along its tensors") {
  const std::int64_t T = 3, past = 2;
  Point a = random_point(T, past);
  const Matrix<Real> d_y = random_matrix(T, D);
  const Memories d_end = random_memory(past + T);
  const auto loss = [&] {
    const HybridRun<Real> run = run_hybrid(form, a.p, a.x, a.start);
    Real sum = inner(run.h.back().element, d_y.element) + inner(run.end[1].mla.element, d_end[1].mla.element);
    for (std::size_t l : {0, 2}) {
      const auto &end = run.end[l].kda, &d = d_end[l].kda;
      sum += inner(end.q_conv.element, d.q_conv.element) + inner(end.k_conv.element, d.k_conv.element) +
             inner(end.v_conv.element, d.v_conv.element);
      for (std::size_t h = 0; h < 2; ++h) sum += inner(end.heads[h].element, d.heads[h].element);
    }
    return sum;
  };
  Point d = a;
  for (std::size_t l = 0; l < 3; ++l)
    d.p[l] = {std::vector<Real>(static_cast<std::size_t>(D), Real(0.0)), zero_tensors(a.p[l].kda), zero_tensors(a.p[l].mla)};
  const HybridReverse<Real> back = hybrid_reverse(form, a.p, a.start, 0, run_hybrid(form, a.p, a.x, a.start), d_y, d_end, d.p);
  d.x = back.x, d.start = back.start;
  std::vector<std::vector<Real>*> slopes;
  for_each(d, [&](const char*, std::vector<Real>& values) { slopes.push_back(&values); });
  std::size_t index = 0, moved_tensors = 0;
  const Real h("1e-17"); // the difference's own error is h^2, rounding's 1e-50 / h
  for_each(a, [&](const char* name, std::vector<Real>& values) {
    INFO(name << ", tensor " << index);
    REQUIRE(slopes[index]->size() == values.size());
    const std::vector<Real> at = values, direction = random_vector(static_cast<std::int64_t>(values.size()));
    const auto moved = [&](const Real& by) {
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = at[i] + by * direction[i];
      return loss();
    };
    const Real slope = (moved(h) - moved(-h)) / (2 * h);
    values = at;
    const Real predicted = inner(*slopes[index++], direction);
    CHECK(abs(slope - predicted) <= Real("1e-28") * (1 + abs(predicted)));
    moved_tensors += values.empty() ? 0 : 1;
  });
  CHECK(moved_tensors == 1 + 3 + 2 * 3 + 3 + 2 + 1 + 4);
}

TEST_CASE("a stack whose mixers write nothing hands x through") {
  Point a = random_point(4, 0);
  for (HybridTensors<Real>& p : a.p) {
    for (Real& w : p.kda.o_proj.element) w = Real(0.0);
    for (Real& w : p.mla.o_proj.element) w = Real(0.0);
  }
  CHECK(run_hybrid(form, a.p, a.x, a.start).h.back().element == a.x.element);
}
