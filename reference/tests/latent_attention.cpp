// The adjoint of latent attention against differences along random directions of every parameter, of x and of the cache, at 50
// digits; two calls against one; and two tokens worked out by hand.

#include "../latent_attention_adjoint.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>
#include <functional>
#include <random>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

namespace {

std::mt19937_64 bits(27182);
Matrix<Real> random_matrix(std::int64_t rows, std::int64_t columns) {
  return matrix_of<Real>(rows, columns, [](std::int64_t, std::int64_t) {
    return Real(static_cast<double>(static_cast<std::int64_t>(bits()) >> 20) * 0x1p-43);
  });
}

struct Point {
  LatentTensors<Real> p;
  Matrix<Real> x, start;
};
Point random_point(const LatentForm& f, std::int64_t T, std::int64_t past, std::int64_t D) {
  return {{.q_proj = random_matrix(D, f.H * (f.K + f.K_shared)),
           .kv_down = random_matrix(D, f.rank),
           .kv_norm = random_matrix(1, f.rank).element,
           .kv_up = random_matrix(f.rank, f.H * (f.K + f.V)),
           .k_shared = random_matrix(D, f.K_shared),
           .o_proj = random_matrix(f.H * f.V, D)},
          random_matrix(T, D),
          random_matrix(past, f.rank + f.K_shared)};
}
void for_each(Point& a, const std::function<void(const char*, std::vector<Real>&)>& visit) {
  visit("q_proj", a.p.q_proj.element), visit("kv_down", a.p.kv_down.element), visit("kv_norm", a.p.kv_norm);
  visit("kv_up", a.p.kv_up.element), visit("k_shared", a.p.k_shared.element), visit("o_proj", a.p.o_proj.element);
  visit("x", a.x.element), visit("cache", a.start.element);
}
Real inner(const std::vector<Real>& a, const std::vector<Real>& b) {
  Real sum(0.0);
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

} // namespace

TEST_CASE("the gradient of every tensor of latent attention is the slope of the loss along it") {
  for (const std::int64_t K_shared : {0, 2})
    for (const std::int64_t past : {0, 3}) {
      const LatentForm f{.H = 2, .K = 3, .K_shared = K_shared, .V = 2, .rank = 4, .scale = 0.57};
      const std::int64_t T = 4, D = 5;
      Point a = random_point(f, T, past, D);
      const Matrix<Real> d_y = random_matrix(T, D), d_end = random_matrix(past + T, f.rank + f.K_shared);
      const auto loss = [&] {
        const LatentRun<Real> run = run_latent(f, a.p, a.x, a.start);
        return inner(run.y.element, d_y.element) + inner(run.end.element, d_end.element);
      };
      Point d{zero_tensors(a.p), {}, {}};
      const LatentReverse<Real> back = latent_reverse(f, a.p, a.x, a.start, run_latent(f, a.p, a.x, a.start), d_y, d_end, d.p);
      d.x = back.x, d.start = back.start;
      std::vector<std::vector<Real>*> slopes;
      for_each(d, [&](const char*, std::vector<Real>& values) { slopes.push_back(&values); });
      std::size_t index = 0;
      const Real h("1e-17"); // the difference's own error is h^2, rounding's 1e-50 / h
      for_each(a, [&](const char* name, std::vector<Real>& values) {
        INFO(name << ", K_shared " << K_shared << ", past " << past);
        REQUIRE(slopes[index]->size() == values.size());
        const std::vector<Real> at = values, direction = random_matrix(1, static_cast<std::int64_t>(values.size())).element;
        const auto moved = [&](const Real& by) {
          for (std::size_t i = 0; i < values.size(); ++i) values[i] = at[i] + by * direction[i];
          return loss();
        };
        const Real slope = (moved(h) - moved(-h)) / (2 * h);
        values = at;
        const Real predicted = inner(*slopes[index], direction);
        CHECK(abs(slope - predicted) <= Real("1e-29") * (1 + abs(predicted)));
        ++index;
      });
      CHECK(index == slopes.size());
    }
}

TEST_CASE("two calls joined by the cache give what one gives") {
  const LatentForm f{.H = 2, .K = 3, .K_shared = 2, .V = 2, .rank = 4, .scale = 0.5};
  const Point a = random_point(f, 6, 2, 5);
  const auto rows = [&](std::int64_t first, std::int64_t last) {
    return matrix_of<Real>(last - first, a.x.columns, [&](std::int64_t i, std::int64_t j) { return a.x(first + i, j); });
  };
  const LatentRun<Real> whole = run_latent(f, a.p, a.x, a.start), first = run_latent(f, a.p, rows(0, 2), a.start),
                        second = run_latent(f, a.p, rows(2, 6), first.end);
  CHECK(whole.end.element == second.end.element);
  for (std::int64_t t = 0; t < 6; ++t)
    for (std::int64_t j = 0; j < 5; ++j) CHECK(abs(whole.y(t, j) - (t < 2 ? first.y(t, j) : second.y(t - 2, j))) <= Real("1e-47"));
}

TEST_CASE("attention in the latent space is attention") {
  for (const std::int64_t K_shared : {0, 2}) {
    const LatentForm f{.H = 2, .K = 3, .K_shared = K_shared, .V = 2, .rank = 4, .scale = 0.5};
    const Point a = random_point(f, 4, 3, 5);
    const LatentRun<Real> one = run_latent(f, a.p, a.x, a.start), other = run_latent(f, a.p, a.x, a.start, true);
    for (std::size_t i = 0; i < one.y.element.size(); ++i) CHECK(abs(one.y.element[i] - other.y.element[i]) <= Real("1e-46"));
  }
}

TEST_CASE("two tokens of a layer of ones are what a pencil says") {
  // D = H = K = V = rank = 1, weights 1, scale 1: c = +-1 / sqrt(1 + epsilon / x^2), k = v = c, q = x.
  const LatentForm f;
  const Matrix<Real> one = identity<Real>(1);
  const LatentTensors<Real> p{.q_proj = one,
                              .kv_down = one,
                              .kv_norm = {Real(1.0)},
                              .kv_up = matrix_of<Real>(1, 2, [](auto, auto) { return Real(1.0); }),
                              .k_shared = Matrix<Real>(1, 0),
                              .o_proj = one};
  Matrix<Real> x(2, 1);
  x(0, 0) = Real(-2.0), x(1, 0) = Real(3.0);
  const Real epsilon(f.norm_epsilon), a = -2 / sqrt(4 + epsilon), b = 3 / sqrt(9 + epsilon);
  const Real left = exp(3 * a), right = exp(3 * b);
  const LatentRun<Real> run = run_latent(f, p, x, Matrix<Real>(0, 1));
  CHECK(abs(run.y(0, 0) - a) <= Real("1e-48"));
  CHECK(abs(run.y(1, 0) - (left * a + right * b) / (left + right)) <= Real("1e-47"));
}
