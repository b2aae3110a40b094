// The gating module against its oracle in long double, at both ends of every form and for malformed calls.

#include "../gating.hpp"

#include "../../../reference/gating.hpp"
#include "bits.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <omp.h>
#include <random>
#include <tuple>

using namespace kdacheck;
using namespace kdacheck::modules;
using Real = long double;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr Real u = 0x1p-24L, smallest = 0x1p-149L;
constexpr std::array forms{GateForm::sigmoid, GateForm::softplus, GateForm::bounded};

std::mt19937_64 bits(2718);
float uniform(float low, float high) { return low + (high - low) * static_cast<float>(bits() % 65536) / 65536.0f; }
std::vector<float> uniforms(std::int64_t count, float low, float high) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = uniform(low, high);
  return values;
}
/// Integers of +-2: sums of their products are exact in fp32.
std::vector<float> small_integers(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = static_cast<float>(static_cast<int>(bits() % 5) - 2);
  return values;
}

struct Case {
  Gating module;
  GatingParameters parameters;
  std::int64_t B = 1, T = 1;
  std::vector<float> x;
  GatingInput input() const { return {B, T, x}; }
  std::size_t gate_count() const { return static_cast<std::size_t>(B * T * module.width()); }
};

struct Written {
  std::vector<float> alpha, log_decay;
};
Written run(const Case& c) {
  Written out{std::vector<float>(c.gate_count(), -7.0f), std::vector<float>(c.gate_count(), 7.0f)};
  gates(c.module, c.parameters, c.input(), {out.alpha, out.log_decay});
  return out;
}

Matrix<Real> matrix(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  return matrix_of<Real>(rows, columns, [&](std::int64_t i, std::int64_t j) { return values[static_cast<std::size_t>(i * columns + j)]; });
}
Matrix<Real> sizes(Matrix<Real> A) {
  for (Real& x : A.element) x = std::fabs(x);
  return A;
}
LowRankGate<Real> exact(const Case& c) {
  const Gating& m = c.module;
  return {.form = m.form,
          .lower_bound = m.lower_bound,
          .columns_per_head = m.per_head ? 1 : m.K,
          .x = matrix(c.x, c.B * c.T, m.D),
          .down = matrix(c.parameters.down, m.D, m.rank),
          .up = matrix(c.parameters.up, m.rank, m.width()),
          .A_log = {c.parameters.A_log.begin(), c.parameters.A_log.end()},
          .dt_bias = {c.parameters.dt_bias.begin(), c.parameters.dt_bias.end()}};
}

/// How far the argument of the sigmoid or softplus may be off, as a shift of the logit, and the gates at both ends: what the
/// header promises, with an error of the logit itself on top.
void check_gate(const LowRankGate<Real>& module, std::int64_t column, Real logit, Real logit_error, float alpha, float log_decay) {
  const Gate<Real> gate = gate_of_column(module, column, logit);
  const Real y = gate.x + gate.dt_bias;
  Real shift = logit_error;
  if (module.form == GateForm::softplus) shift += u * std::fabs(y) + u * logit_error;
  if (module.form == GateForm::bounded) shift += 3 * u * std::fabs(y) + 3 * u * logit_error;
  Gate<Real> below = gate, above = gate;
  below.x -= shift;
  above.x += shift;
  const auto [low, high] = std::minmax(decay(below).log_decay, decay(above).log_decay);
  const Real factor = module.form == GateForm::softplus ? std::exp(gate.A_log) : module.form == GateForm::bounded ? -module.lower_bound : 1;
  const Real flushed = 2 * smallest * std::max<Real>(1, factor);
  INFO("logit " << static_cast<double>(logit) << " form " << name(module.form) << " exact ln alpha " << static_cast<double>(low));
  CHECK(log_decay <= high * (1 - 16 * u) + flushed);
  CHECK(log_decay >= std::max<Real>(low * (1 + 16 * u) - flushed, -std::numeric_limits<float>::max()));
  CHECK(alpha <= std::exp(high * (1 - 16 * u)) * (1 + 8 * u) + 2 * smallest);
  CHECK(alpha >= std::exp(low * (1 + 16 * u)) * (1 - 8 * u) - 2 * smallest);
  CHECK(alpha >= 0.0f);
  CHECK(alpha <= 1.0f);
}

/// One row, one projection that hands the logits through: up holds them, x = down = 1.
Case of_logits(GateForm form, std::vector<float> logits, float A_log, float dt_bias) {
  Case c{.module = {.D = 1, .rank = 1, .H = 1, .K = static_cast<std::int64_t>(logits.size()), .form = form},
         .parameters = {.down = {1.0f}, .up = std::move(logits), .A_log = {}, .dt_bias = {}},
         .x = {1.0f}};
  if (form == GateForm::sigmoid) return c;
  c.parameters.A_log = {A_log};
  c.parameters.dt_bias.assign(c.parameters.up.size(), dt_bias);
  return c;
}

Case random_case(GateForm form, bool per_head, std::int64_t D, std::int64_t rank, std::int64_t H, std::int64_t K, bool exact_sums) {
  Case c{.module = {.D = D, .rank = rank, .H = H, .K = K, .form = form, .per_head = per_head}, .parameters = {}, .B = 3, .T = 29, .x = {}};
  const auto draw = [&](std::int64_t count) { return exact_sums ? small_integers(count) : uniforms(count, -1, 1); };
  c.x = draw(c.B * c.T * D);
  c.parameters.down = draw(D * rank);
  c.parameters.up = draw(rank * c.module.width());
  if (form == GateForm::sigmoid) return c;
  c.parameters.A_log = uniforms(H, -3, 1);
  c.parameters.dt_bias = small_integers(c.module.width());
  return c;
}

} // namespace

TEST_CASE("gates keep their digits for logits from -40 to 40 and A_log from -10 to 6 and -inf") {
  std::vector<float> logits;
  for (float x = -40; x <= 40; x += 0.37f) logits.push_back(x);
  for (float x : {-40.0f, 40.0f, 0.0f, -0.0f, 0x1p-140f, -1e-30f, 88.0f, -88.0f, -104.0f, 1e30f, -1e30f}) logits.push_back(x);
  for (GateForm form : forms)
    for (float A_log : {-infinity, -10.0f, -4.5f, 0.0f, 2.7f, 6.0f})
      for (float dt_bias : {0.0f, 1.5f}) {
        const Case c = of_logits(form, logits, A_log, dt_bias);
        const Written out = run(c);
        const LowRankGate<Real> module = exact(c);
        for (std::size_t i = 0; i < logits.size(); ++i)
          check_gate(module, static_cast<std::int64_t>(i), logits[i], 0, out.alpha[i], out.log_decay[i]);
      }
}

TEST_CASE("gates through both projections are the oracle's within the roundings of the sums") {
  for (GateForm form : forms)
    for (const auto& [per_head, H, K] : // with widths of whole registers, of eight and of sixteen, and of whole blocks of them
         std::vector<std::tuple<bool, std::int64_t, std::int64_t>>{{false, 3, 21},
                                                                   {true, 3, 21},
                                                                   {true, 8, 4},
                                                                   {false, 2, 4},
                                                                   {false, 3, 8},
                                                                   {false, 1, 16},
                                                                   {false, 2, 16},
                                                                   {false, 5, 8},
                                                                   {false, 2, 32}}) {
      CAPTURE(per_head, H, K);
      const Case c = random_case(form, per_head, 37, 5, H, K, false);
      const Written out = run(c);
      const LowRankGate<Real> module = exact(c);
      const Matrix<Real> logits = gate_logits(module), size = (sizes(module.x) * sizes(module.down)) * sizes(module.up);
      const Real roundings = static_cast<Real>(c.module.D + c.module.rank) * u / (1 - static_cast<Real>(c.module.D + c.module.rank) * u);
      for (std::int64_t i = 0; i < logits.rows; ++i)
        for (std::int64_t j = 0; j < logits.columns; ++j) {
          const auto place = static_cast<std::size_t>(i * logits.columns + j);
          check_gate(module, j, logits(i, j), roundings * size(i, j), out.alpha[place], out.log_decay[place]);
        }
    }
}

TEST_CASE("gates are in [0,1] and ordered as their logits, for any finite input") {
  std::vector<float> logits;
  for (int i = 0; i < 4000; ++i) logits.push_back(std::ldexp(uniform(-1, 1), static_cast<int>(bits() % 240) - 120));
  std::ranges::sort(logits);
  for (GateForm form : forms)
    for (float A_log : {-infinity, 0.0f, 6.0f, 300.0f}) {
      const Written out = run(of_logits(form, logits, A_log, 0.0f));
      const bool rising = form == GateForm::sigmoid;
      for (std::size_t i = 0; i < logits.size(); ++i) {
        REQUIRE((out.alpha[i] >= 0.0f && out.alpha[i] <= 1.0f && out.log_decay[i] <= 0.0f));
        if (i == 0) continue;
        // one logit above the other: the gate may stand still, or be off by its promised roundings
        const Real slack = 1 + 64 * u * (1 + std::fabs(static_cast<Real>(out.log_decay[i])));
        const float lower = rising ? out.alpha[i - 1] : out.alpha[i], upper = rising ? out.alpha[i] : out.alpha[i - 1];
        REQUIRE(lower <= upper * slack + 4 * smallest);
      }
    }
}

TEST_CASE("a bias that takes a logit beyond fp32 leaves the gate at its end, or where its rate of 0 holds it") {
  const std::vector<float> logits(40, 3e38f), opposite(40, -3e38f);
  for (GateForm form : {GateForm::softplus, GateForm::bounded})
    for (float A_log : {-infinity, 0.0f, 88.0f})
      for (bool above : {false, true}) {
        const Case c = of_logits(form, above ? logits : opposite, A_log, above ? 3e38f : -3e38f);
        const Written out = run(c);
        const Real bound = -5.0L;
        Real end = above ? (form == GateForm::softplus ? -std::numeric_limits<float>::max() : bound) : 0;
        if (A_log < 0) end = form == GateForm::softplus ? 0 : bound / 2;
        CAPTURE(name(form), A_log, above);
        for (std::size_t i = 0; i < logits.size(); ++i) {
          CHECK(std::fabs(out.log_decay[i] - end) <= 4 * u * std::fabs(end));
          CHECK(std::fabs(out.alpha[i] - std::exp(end)) <= 64 * u * std::exp(end));
        }
        const std::vector<float> d(logits.size(), 1.0f);
        const GatingGradients slopes = gates_backward(c.module, c.parameters, c.input(), {.alpha = {}, .log_decay = d});
        for (float slope : slopes.dt_bias) CHECK(std::isfinite(slope));
        CHECK_FALSE(std::isnan(slopes.A_log[0])); // infinite where forty slopes at the end of fp32 are added up
      }
}

TEST_CASE("rows whose sums overflow fp32 have the gates of their exact logits, and leave other rows alone") {
  Case c{.module = {.D = 2, .rank = 2, .H = 1, .K = 2}, .parameters = {}, .B = 1, .T = 2, .x = {3e38f, 3e38f, 0.5f, 0.25f}};
  c.parameters.down = {3e38f, 1.0f, -3e38f, 1.0f}; // inf - inf in fp32, 0 in truth
  c.parameters.up = {1.0f, -1.0f, 0x1p-128f, 0.0f};
  const Written out = run(c);
  CHECK(out.alpha[0] == Approx(1 / (1 + std::exp(-6e38 * 0x1p-128))).epsilon(1e-6));
  CHECK(out.alpha[1] == 0.5f);
  CHECK(out.alpha[2] == 1.0f);
  CHECK(out.alpha[3] == 0.0f);
}

TEST_CASE("gradients to x, both projections, A_log and dt_bias are the oracle's within counted roundings") {
  for (GateForm form : forms)
    for (bool per_head : {false, true}) {
      const Case c = random_case(form, per_head, 19, 4, 2, 18, true); // logits exact: only the slopes and the sums round
      const std::vector<float> d = small_integers(static_cast<std::int64_t>(c.gate_count()));
      const GatingGradients found = gates_backward(c.module, c.parameters, c.input(), {{}, d});
      const LowRankGate<Real> module = exact(c);
      const std::int64_t rows = c.B * c.T, W = c.module.width();
      const auto wanted = low_rank_gates_reverse(module, matrix(d, rows, W));
      const Matrix<Real> d_logits = sizes(wanted.logits), hidden = sizes(module.x * module.down);
      // |z| is at most e^1 (2 2 2 19 4 + 2): its roundings move a slope by a relative 3 u |z|, where it is not yet 0
      const Matrix<Real> logits = gate_logits(module);
      Real argument = 0;
      for (const Real& l : logits.element) argument = std::max(argument, std::fabs(l) + 2);
      const Real slope_error = (3 * argument * std::exp(Real(1)) + 24) * u;
      const auto compare = [&](const std::vector<float>& got, const std::vector<Real>& exact_values, const std::vector<Real>& size,
                               std::int64_t chain) {
        REQUIRE(got.size() == exact_values.size());
        const Real relative = (slope_error + static_cast<Real>(chain) * u) * 1.001L;
        for (std::size_t i = 0; i < got.size(); ++i) {
          INFO("form " << name(form) << " element " << i << " got " << got[i] << " wanted " << static_cast<double>(exact_values[i]));
          CHECK(std::fabs(got[i] - exact_values[i]) <= relative * size[i] + smallest * static_cast<Real>(chain * 64));
        }
      };
      const Matrix<Real> d_hidden = d_logits * transposed(sizes(module.up));
      compare(found.up, wanted.up.element, (transposed(hidden) * d_logits).element, rows);
      compare(found.down, wanted.down.element, (transposed(sizes(module.x)) * d_hidden).element, W + rows);
      compare(found.x, wanted.x.element, (d_hidden * transposed(sizes(module.down))).element, W + c.module.rank);
      std::vector<Real> bias_size(module.dt_bias.size(), 0), A_size(module.A_log.size(), 0);
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < W && !bias_size.empty(); ++j) {
          bias_size[static_cast<std::size_t>(j)] += d_logits(i, j);
          const Gate<Real> gate = gate_of_column(module, j, logits(i, j));
          A_size[static_cast<std::size_t>(j / module.columns_per_head)] +=
              std::fabs(decay_reverse<Real>(gate, decay(gate), d[static_cast<std::size_t>(i * W + j)]).A_log);
        }
      compare(found.dt_bias, wanted.dt_bias, bias_size, 2);
      compare(found.A_log, wanted.A_log, A_size, 2);
    }
}

TEST_CASE("a cotangent of alpha counts alpha times as one of ln alpha") {
  const Case c = random_case(GateForm::softplus, false, 9, 3, 2, 16, true);
  const std::vector<float> d = small_integers(static_cast<std::int64_t>(c.gate_count()));
  const Written out = run(c);
  std::vector<float> through(d.size());
  for (std::size_t i = 0; i < d.size(); ++i) through[i] = d[i] * out.alpha[i];
  const GatingGradients a = gates_backward(c.module, c.parameters, c.input(), {d, {}});
  const GatingGradients b = gates_backward(c.module, c.parameters, c.input(), {{}, through});
  CHECK(a.x == b.x);
  CHECK(a.A_log == b.A_log);
  CHECK(std::ranges::any_of(a.x, [](float x) { return x != 0; }));
}

TEST_CASE("a row's gates and all gradients are the same bits with one thread and with several, alone and among others") {
  const Case c = random_case(GateForm::bounded, false, 64, 16, 4, 20, false);
  const std::vector<float> d = uniforms(static_cast<std::int64_t>(c.gate_count()), -1, 1);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(3);
  const Written several = run(c);
  const GatingGradients d_several = gates_backward(c.module, c.parameters, c.input(), {d, {}});
  omp_set_num_threads(1);
  const Written one = run(c);
  const GatingGradients d_one = gates_backward(c.module, c.parameters, c.input(), {d, {}});
  omp_set_num_threads(threads);
  CHECK(several.alpha == one.alpha);
  CHECK((d_several.x == d_one.x && d_several.up == d_one.up && d_several.down == d_one.down));
  CHECK((d_several.A_log == d_one.A_log && d_several.dt_bias == d_one.dt_bias));
  const auto row = static_cast<std::ptrdiff_t>(c.B * c.T - 2), D = static_cast<std::ptrdiff_t>(c.module.D);
  Case alone{.module = c.module, .parameters = c.parameters, .B = 1, .T = 1, .x = {c.x.begin() + row * D, c.x.begin() + (row + 1) * D}};
  const std::vector<float> its = run(alone).alpha;
  CHECK(std::equal(its.begin(), its.end(), one.alpha.begin() + row * c.module.width()));
}

TEST_CASE("Xavier initialisation is the same bits on every machine and has the variance of its limit") {
  const Gating module{.D = 512, .rank = 64, .H = 8, .K = 64, .form = GateForm::softplus};
  const GatingParameters parameters = xavier_parameters(module, 42), again = xavier_parameters(module, 42);
  CHECK(parameters.down == again.down);
  CHECK(parameters.down != xavier_parameters(module, 43).down);
  CHECK(parameters.down != xavier_parameters(module, 42 + (std::uint64_t{1} << 32)).down); // all bits of a seed count
  CHECK(parameters.down[0] != parameters.up[0]);
  CHECK(parameters.A_log.size() == 8);
  CHECK(parameters.dt_bias.size() == 512);
  const std::array pinned{0x1.79c796p-6f, -0x1.a43bb4p-8f, -0x1.64d158p-4f, -0x1.0a1be2p-5f, 0x1.97c724p-4f, -0x1.212e98p-5f};
  for (std::size_t i = 0; i < pinned.size(); ++i) CHECK(parameters.down[i] == pinned[i]);
  CHECK(bits_of(parameters.up, bits_of(parameters.down)) == 0x63af2d1413c94fef);
  const auto [lowest, highest] = std::ranges::minmax(parameters.up);
  const float wide = static_cast<float>(std::sqrt(6.0 / (64 + 512)));
  CHECK((-wide <= lowest && lowest < -0.99f * wide && 0.99f * wide < highest && highest <= wide));
  const double limit = std::sqrt(6.0 / (512 + 64));
  double sum = 0, squares = 0;
  for (float w : parameters.down) {
    CHECK(std::fabs(w) <= limit);
    sum += w;
    squares += static_cast<double>(w) * w;
  }
  // n = 32768 draws: mean 0 +- limit / sqrt(3 n), square limit^2 / 3 with relative deviation sqrt(0.8 / n); six of each
  const double n = static_cast<double>(parameters.down.size());
  CHECK(std::fabs(sum / n) < 6 * limit / std::sqrt(3 * n));
  CHECK(std::fabs(squares / n / (limit * limit / 3) - 1) < 6 * std::sqrt(0.8 / n));
}

TEST_CASE("a call without rows writes nothing, and its gradients are zero in the shapes of their primals") {
  for (GateForm form : forms) {
    Case c = random_case(form, false, 9, 3, 2, 5, true);
    c.B = 2, c.T = 0, c.x.clear();
    CHECK(run(c).alpha.empty());
    const GatingGradients d = gates_backward(c.module, c.parameters, c.input(), {});
    CHECK((d.x.empty() && d.down == std::vector<float>(27, 0.0f) && d.up == std::vector<float>(30, 0.0f)));
    CHECK((d.A_log == std::vector<float>(c.parameters.A_log.size(), 0.0f) &&
           d.dt_bias == std::vector<float>(c.parameters.dt_bias.size(), 0.0f)));
  }
}

TEST_CASE("wrong shapes and numbers that are not finite are refused with the tensor's name, before anything is written") {
  const auto refused = [](Case c, const char* part, bool gradient = true) {
    std::vector<float> alpha(c.gate_count(), -7.0f);
    CHECK_THROWS_WITH(gates(c.module, c.parameters, c.input(), {alpha, {}}), Catch::Contains(part));
    CHECK(std::ranges::all_of(alpha, [](float a) { return a == -7.0f; }));
    if (gradient) CHECK_THROWS_WITH(gates_backward(c.module, c.parameters, c.input(), {alpha, {}}), Catch::Contains(part));
  };
  const Case good = random_case(GateForm::softplus, false, 4, 2, 2, 3, false);
  CHECK_NOTHROW(run(good));
  const auto with = [&](auto change) {
    Case c = good;
    change(c);
    return c;
  };
  refused(with([](Case& c) { c.x.pop_back(); }), "x has 347 numbers, its shape [B,T,D] needs 348");
  refused(with([](Case& c) { c.parameters.down.push_back(0); }), "down has 9 numbers");
  refused(with([](Case& c) { c.parameters.up.clear(); }), "up has 0 numbers");
  refused(with([](Case& c) { c.parameters.A_log.pop_back(); }), "A_log has 1 numbers");
  refused(with([](Case& c) { c.parameters.dt_bias.pop_back(); }), "dt_bias has 5 numbers");
  refused(with([](Case& c) { c.module.form = GateForm::sigmoid; }), "the sigmoid form has none");
  refused(with([](Case& c) { c.module.form = GateForm::log_decay; }), "is not sigmoid, softplus or bounded");
  refused(with([](Case& c) { c.module.lower_bound = 1; }), "lower_bound");
  refused(with([](Case& c) { c.module.lower_bound = std::nanf(""); }), "lower_bound");
  refused(with([](Case& c) { c.x[7] = std::nanf(""); }), "x holds nan at element 7");
  refused(with([](Case& c) { c.x[0] = infinity; }), "x holds inf");
  refused(with([](Case& c) { c.parameters.down[1] = -infinity; }), "down holds -inf");
  refused(with([](Case& c) { c.parameters.up[1] = std::nanf(""); }), "up holds nan");
  refused(with([](Case& c) { c.parameters.dt_bias[2] = infinity; }), "dt_bias holds inf");
  refused(with([](Case& c) { c.parameters.A_log[1] = infinity; }), "A_log holds inf");
  refused(with([](Case& c) { c.parameters.A_log[1] = std::nanf(""); }), "A_log holds nan");
  Case none = good;
  none.module.rank = 0;
  CHECK_THROWS_WITH(xavier_parameters(none.module, 1), Catch::Contains("rank = 0"));
  std::vector<float> short_alpha(good.gate_count() - 1);
  CHECK_THROWS_WITH(gates(good.module, good.parameters, good.input(), {short_alpha, {}}), Catch::Contains("alpha has"));
  std::vector<float> bad(good.gate_count(), infinity);
  CHECK_THROWS_WITH(gates_backward(good.module, good.parameters, good.input(), {{}, bad}), Catch::Contains("cotangent of log_decay"));
}
