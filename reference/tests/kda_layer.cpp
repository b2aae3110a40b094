// The layer's adjoint against differences along random directions of every parameter, of x and of the memory, at 50 digits;
// the recurrence against chunks; and one token worked out by hand.

#include "../kda_layer_adjoint.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <catch2/catch.hpp>
#include <functional>
#include <random>

using namespace kdacheck;
using Real = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

namespace {

std::mt19937_64 bits(31415);
Real number() { return Real(static_cast<double>(static_cast<std::int64_t>(bits()) >> 20) * 0x1p-43); }
Matrix<Real> random_matrix(std::int64_t rows, std::int64_t columns) {
  return matrix_of<Real>(rows, columns, [](std::int64_t, std::int64_t) { return number(); });
}
std::vector<Real> random_vector(std::int64_t size) { return random_matrix(1, size).element; }

struct Point {
  LayerTensors<Real> p;
  Matrix<Real> x;
  LayerMemory<Real> start;
};

Point random_point(const LayerForm& f, std::int64_t T, std::int64_t D, bool bias) {
  const std::int64_t keys = f.H * f.K, values = f.HV * f.V, history = f.conv_width - 1;
  const auto biased = [&](std::int64_t size) { return bias ? random_vector(size) : std::vector<Real>{}; };
  const bool plain = f.gate == GateForm::sigmoid;
  Point point{{.q_proj = random_matrix(D, keys),
               .k_proj = random_matrix(D, keys),
               .v_proj = random_matrix(D, values),
               .q_conv = {random_matrix(keys, f.conv_width), biased(keys)},
               .k_conv = {random_matrix(keys, f.conv_width), biased(keys)},
               .v_conv = {random_matrix(values, f.conv_width), biased(values)},
               .f_down = random_matrix(D, 2),
               .f_up = random_matrix(2, f.HV * f.K),
               .A_log = plain ? std::vector<Real>{} : random_vector(f.HV),
               .dt_bias = plain ? std::vector<Real>{} : random_vector(f.HV * f.K),
               .b_proj = random_matrix(D, f.HV),
               .g_down = random_matrix(D, 3),
               .g_up = random_matrix(3, values),
               .g_bias = random_vector(values),
               .o_norm = random_vector(f.V),
               .o_proj = random_matrix(values, D)},
              random_matrix(T, D),
              {random_matrix(history, keys), random_matrix(history, keys), random_matrix(history, values), {}}};
  for (std::int64_t h = 0; h < f.HV; ++h) point.start.heads.push_back(layer_detail::as_state(random_matrix(f.K, f.V)));
  return point;
}

/// visit(name, numbers) for everything that a point is made of.
void for_each(Point& a, const std::function<void(const char*, std::vector<Real>&)>& visit) {
  LayerTensors<Real>& p = a.p;
  visit("q_proj", p.q_proj.element), visit("k_proj", p.k_proj.element), visit("v_proj", p.v_proj.element);
  visit("q_conv", p.q_conv.weight.element), visit("k_conv", p.k_conv.weight.element), visit("v_conv", p.v_conv.weight.element);
  visit("q_conv_bias", p.q_conv.bias), visit("k_conv_bias", p.k_conv.bias), visit("v_conv_bias", p.v_conv.bias);
  visit("f_down", p.f_down.element), visit("f_up", p.f_up.element), visit("A_log", p.A_log), visit("dt_bias", p.dt_bias);
  visit("b_proj", p.b_proj.element), visit("g_down", p.g_down.element), visit("g_up", p.g_up.element), visit("g_bias", p.g_bias);
  visit("o_norm", p.o_norm), visit("o_proj", p.o_proj.element), visit("x", a.x.element);
  visit("q history", a.start.q_conv.element), visit("k history", a.start.k_conv.element), visit("v history", a.start.v_conv.element);
  for (State<Real>& S : a.start.heads) visit("memory", S.element);
}

Real inner(const std::vector<Real>& a, const std::vector<Real>& b) {
  Real sum(0.0);
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

Real loss(const LayerForm& f, const Point& a, const Matrix<Real>& d_y, const LayerMemory<Real>& d_end, std::int64_t chunk) {
  const LayerRun<Real> run = run_layer(f, a.p, a.x, a.start, chunk);
  Real sum = inner(run.y.element, d_y.element) + inner(run.end.q_conv.element, d_end.q_conv.element) +
             inner(run.end.k_conv.element, d_end.k_conv.element) + inner(run.end.v_conv.element, d_end.v_conv.element);
  for (std::size_t h = 0; h < d_end.heads.size(); ++h) sum += inner(run.end.heads[h].element, d_end.heads[h].element);
  return sum;
}

Point gradient(const LayerForm& f, const Point& a, const Matrix<Real>& d_y, const LayerMemory<Real>& d_end, std::int64_t chunk) {
  Point d{zero_tensors(a.p), {}, {}};
  LayerReverse<Real> back = layer_reverse(f, a.p, a.x, chunk, run_layer(f, a.p, a.x, a.start, chunk), d_y, d_end, d.p);
  d.x = back.x, d.start = back.start;
  return d;
}

} // namespace

TEST_CASE("the gradient of every tensor of the layer is the slope of the loss along it") {
  for (const GateForm gate : {GateForm::softplus, GateForm::bounded, GateForm::sigmoid})
    for (const std::int64_t chunk : {0, 3}) {
      LayerForm form{.H = 1, .HV = 2, .K = 3, .V = 2, .conv_width = 3, .gate = gate, .scale = 0.57};
      if (gate == GateForm::bounded) form.beta = BetaForm::twice_sigmoid;
      const std::int64_t T = 5, D = 4;
      Point a = random_point(form, T, D, gate == GateForm::softplus);
      const Matrix<Real> d_y = random_matrix(T, D);
      const LayerMemory<Real> d_end = random_point(form, T, D, false).start;
      Point d = gradient(form, a, d_y, d_end, chunk);
      std::vector<std::vector<Real>*> slopes;
      for_each(d, [&](const char*, std::vector<Real>& values) { slopes.push_back(&values); });
      std::size_t index = 0;
      const Real h("1e-17"); // the difference's own error is h^2, rounding's 1e-50 / h
      for_each(a, [&](const char* name, std::vector<Real>& values) {
        INFO(name << ", gate " << static_cast<int>(gate) << ", chunk " << chunk);
        const std::vector<Real> at = values, direction = random_vector(static_cast<std::int64_t>(values.size()));
        const auto moved = [&](const Real& by) {
          for (std::size_t i = 0; i < values.size(); ++i) values[i] = at[i] + by * direction[i];
          return loss(form, a, d_y, d_end, chunk);
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

TEST_CASE("chunks give what the recurrence gives") {
  const LayerForm form{.H = 2, .HV = 2, .K = 3, .V = 4, .conv_width = 4, .scale = 0.5};
  const Point a = random_point(form, 7, 5, true);
  const LayerRun<Real> one = run_layer(form, a.p, a.x, a.start), other = run_layer(form, a.p, a.x, a.start, 3);
  for (std::size_t i = 0; i < one.y.element.size(); ++i) CHECK(abs(one.y.element[i] - other.y.element[i]) <= Real("1e-44"));
}

TEST_CASE("one token of a layer of ones is what a pencil says") {
  // D = H = K = V = 1, every weight 1, x = 1, no history: a = 1, q = k = swish(1) / sqrt(swish(1)^2 + 1e-6), v = swish(1)
  const LayerForm form{.conv_width = 2, .gate = GateForm::sigmoid, .scale = 1.0};
  const Matrix<Real> one = identity<Real>(1);
  Matrix<Real> taps(1, 2);
  taps(0, 1) = Real(1.0);
  taps(0, 0) = Real(5.0); // meets the token before: nothing here
  const LayerTensors<Real> p{.q_proj = one,
                             .k_proj = one,
                             .v_proj = one,
                             .q_conv = {taps, {}},
                             .k_conv = {taps, {}},
                             .v_conv = {taps, {}},
                             .f_down = one,
                             .f_up = one,
                             .A_log = {},
                             .dt_bias = {},
                             .b_proj = one,
                             .g_down = one,
                             .g_up = one,
                             .g_bias = {Real(0.0)},
                             .o_norm = {Real(1.0)},
                             .o_proj = one};
  const LayerMemory<Real> empty{Matrix<Real>(1, 1), Matrix<Real>(1, 1), Matrix<Real>(1, 1), {State<Real>(1, 1)}};
  const Real s = 1 / (1 + exp(Real(-1.0))), v = s, q = v / sqrt(v * v + Real(l2norm_epsilon));
  const Real o = q * q * s * v; // beta k v^T read by q
  const Real y = o / sqrt(o * o + Real(form.norm_epsilon)) * s;
  CHECK(abs(run_layer(form, p, one, empty).y(0, 0) - y) <= Real("1e-48"));
}
