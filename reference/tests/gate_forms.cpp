// Gates, beta maps and normalisation against their textbook formulas at 100 digits, over the whole range of their inputs.

#include "../gate.hpp"

#include <boost/multiprecision/cpp_bin_float.hpp>
#include <boost/multiprecision/mpfr.hpp>
#include <catch2/catch.hpp>

using namespace kdacheck;
using Exact = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<100>, boost::multiprecision::et_off>;
using Quad = boost::multiprecision::cpp_bin_float_quad;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// ln alpha by the definition, with no thought of cancellation: 100 digits leave more than 60 for |logit| <= 88.
Exact textbook(const Gate<double>& gate) {
  const Exact x = gate.x, y = Exact(gate.x) + Exact(gate.dt_bias), rate = exp(Exact(gate.A_log));
  switch (gate.form) {
  case GateForm::softplus: return -rate * log(1 + exp(y));
  case GateForm::bounded: return gate.lower_bound / (1 + exp(-rate * y));
  case GateForm::sigmoid: return log(1 / (1 + exp(-x)));
  default: return x;
  }
}

Gate<Exact> exactly(const Gate<double>& gate) {
  return {gate.form, Exact(gate.lower_bound), Exact(gate.x), Exact(gate.A_log), Exact(gate.dt_bias)};
}

double relative_error(double computed, const Exact& exact) {
  if (exact == 0) return computed == 0 ? 0 : infinity;
  return static_cast<double>(abs(Exact(computed) - exact) / abs(exact));
}

/// Logits -40 ... 40, A_log -10 ... 6, lower bounds and biases.
template <class Visit> void over_the_domain(GateForm form, Visit visit) {
  for (double x = -40; x <= 40; x += 0.8125)
    for (double A_log : {-10.0, -3.5, 0.0, 1.25, 6.0})
      for (double dt_bias : {0.0, -4.6, 0.03125})
        for (double lower_bound : {-5.0, -0.5}) visit(Gate<double>{form, lower_bound, x, A_log, dt_bias});
}

} // namespace

TEST_CASE("the log decay in double has no cancellation at either end") {
  for (GateForm form : {GateForm::softplus, GateForm::bounded, GateForm::sigmoid}) {
    double worst = 0;
    over_the_domain(form, [&](const Gate<double>& gate) {
      // x + dt_bias is rounded once: relative 2^-53 of |y|, which softplus and sigmoid turn into at most |y| 2^-53, and the
      // bounded gate into |z| 2^-53 with z = e^A y; every other operation (at most 8) adds at most 2^-52.
      const double y = std::fabs(gate.x + gate.dt_bias), z = form == GateForm::bounded ? std::exp(gate.A_log) * y : y;
      const double bound = (8 + std::max(y, 4 * z)) * 0x1p-52;
      if (form == GateForm::bounded && std::exp(gate.A_log) * (gate.x + gate.dt_bias) < -700) return; // subnormal or zero
      const double error = relative_error(decay(gate).log_decay, textbook(gate));
      if (!(error / bound <= worst)) worst = error / bound;
    });
    INFO(name(form));
    CHECK(worst <= 1);
    CHECK(worst > 0);
  }
}

TEST_CASE("113 bits compute the same gate wherever their exponent reaches") {
  const Exact smallest = ldexp(Exact(1), -16382); // what is below becomes 0
  // z = e^A y and g are at most e^6 45 = 1.8e4 in size and enlarge a rounding of 2^-113; a dozen roundings
  const Exact allowed = 12 * Exact(1.8e4) * ldexp(Exact(1), -113);
  for (GateForm form : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid}) {
    int wrong = 0, seen = 0;
    over_the_domain(form, [&](Gate<double> gate) {
      if (form == GateForm::log_decay) gate.x = -std::fabs(gate.x);
      const Decay<Quad> computed = decay(Gate<Quad>{form, gate.lower_bound, gate.x, gate.A_log, gate.dt_bias});
      const Exact g = textbook(gate), alpha = exp(g);
      wrong += !(abs(Exact(computed.log_decay) - g) <= allowed * abs(g) + smallest);
      wrong += !(abs(Exact(computed.alpha) - alpha) <= allowed * alpha + smallest);
      ++seen;
    });
    INFO(name(form));
    CHECK(wrong == 0);
    CHECK(seen == 99 * 5 * 3 * 2);
  }
}

TEST_CASE("alpha stays in [0,1] and falls or rises with the logit as its form says") {
  for (GateForm form : {GateForm::softplus, GateForm::bounded, GateForm::sigmoid})
    for (double A_log : {-infinity, -10.0, 0.0, 6.0, 400.0, 1e4}) {
      double before = form == GateForm::sigmoid ? 0 : 1;
      bool monotone = true, inside = true;
      for (double x = -120; x <= 120; x += 0.37) {
        const double alpha = decay(Gate<double>{form, -5, x, A_log, 0.5}).alpha;
        inside = inside && alpha >= 0 && alpha <= 1;
        monotone = monotone && (form == GateForm::sigmoid ? alpha >= before : alpha <= before);
        before = alpha;
      }
      INFO(name(form) << " A_log " << A_log);
      CHECK(inside);
      CHECK(monotone);
    }
}

TEST_CASE("A_log of minus infinity means no decay under softplus and half the bound under bounded") {
  for (double x : {-1e30, -40.0, 0.0, 3.0, 1e30}) {
    CHECK(decay(Gate<double>{GateForm::softplus, 0, x, -infinity, 0}).alpha == 1);
    CHECK(decay(Gate<Quad>{GateForm::softplus, 0, x, -infinity, 0}).alpha == 1);
    CHECK(decay(Gate<double>{GateForm::bounded, -4, x, -infinity, 0}).log_decay == -2);
    CHECK(decay(Gate<Quad>{GateForm::bounded, -4, x, -infinity, 0}).log_decay == -2);
  }
}

TEST_CASE("factors that overflow alone give the right product") {
  // e^800 softplus(-800) = 1 - e^-800 / 2 ...; the logarithms cancel exactly here
  CHECK(decay(Gate<double>{GateForm::softplus, 0, -800, 800, 0}).log_decay == -1);
  CHECK(decay(Gate<double>{GateForm::softplus, 0, 2, 1e30, 0}).alpha == 0);
  CHECK(decay(Gate<double>{GateForm::softplus, 0, -3e38, 1e4, 0}).alpha == 1);
  CHECK(decay(Gate<double>{GateForm::bounded, -5, 0, 1e30, 0}).log_decay == -2.5);
  CHECK(decay(Gate<double>{GateForm::bounded, -5, -1e-30, 1e30, 0}).log_decay == 0);
  CHECK(decay(Gate<double>{GateForm::bounded, -5, 1e-30, 1e30, 0}).log_decay == -5);
}

TEST_CASE("the logarithmic form of the softplus gate is right far beyond double") {
  using Long = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<900>, boost::multiprecision::et_off>;
  for (double y : {-601.0, -700.0, -900.0}) { // ln softplus(y) = y - e^y/2 + (5/24) e^2y: what is dropped is below e^2y <= 1e-521
    const Long computed = decay(Gate<Long>{GateForm::softplus, Long(0), Long(y), Long(3), Long(0)}).log_decay;
    const Long exact = -exp(Long(3)) * log1p(exp(Long(y)));
    CHECK(abs(computed - exact) <= exp(Long(2 * y)) * abs(exact));
  }
}

TEST_CASE("gate derivatives are those of the textbook formula") {
  const Exact h("1e-30");
  for (GateForm form : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid}) {
    Exact worst = 0;
    over_the_domain(form, [&](const Gate<double>& gate) {
      const Gate<Exact> at = exactly(gate);
      const GateGradient<Exact> computed = decay_reverse(at, decay(at), Exact(1.5));
      for (Exact Gate<Exact>::*variable : {&Gate<Exact>::x, &Gate<Exact>::A_log, &Gate<Exact>::dt_bias}) {
        Gate<Exact> above = at, below = at;
        above.*variable += h, below.*variable -= h;
        const Exact difference = Exact(1.5) * (decay(above).log_decay - decay(below).log_decay) / (2 * h);
        const bool parametric = form == GateForm::softplus || form == GateForm::bounded;
        const Exact expected = variable == &Gate<Exact>::A_log ? computed.A_log : computed.x;
        if (variable == &Gate<Exact>::dt_bias && !parametric) continue;
        // central difference: h^2 = 1e-60 times a third derivative up to (e^6 45)^3 = 6e12 times the value
        const Exact allowed = Exact("1e-40") * abs(expected) + Exact("1e-60");
        const Exact error = abs(difference - expected) / allowed;
        if (!(error <= worst)) worst = error;
      }
    });
    INFO(name(form));
    CHECK(static_cast<double>(worst) <= 1);
  }
}

TEST_CASE("derivatives in double have no cancellation at either end") {
  for (GateForm form : {GateForm::softplus, GateForm::bounded, GateForm::sigmoid}) {
    double worst = 0;
    over_the_domain(form, [&](const Gate<double>& gate) {
      const double y = std::fabs(gate.x + gate.dt_bias), z = form == GateForm::bounded ? std::exp(gate.A_log) * y : y;
      if (z > 600) return; // subnormal or zero
      const Gate<Exact> at = exactly(gate);
      const GateGradient<Exact> exact = decay_reverse(at, decay(at), Exact(1));
      const GateGradient<double> computed = decay_reverse(gate, decay(gate), 1.0);
      // at most 16 operations, and roundings of y and z enlarged by them
      const double bound = (16 + 4 * z) * 0x1p-52;
      const double error = std::max(relative_error(computed.x, exact.x), relative_error(computed.A_log, exact.A_log));
      if (!(error / bound <= worst)) worst = error / bound;
    });
    INFO(name(form));
    CHECK(worst <= 1);
    CHECK(worst > 0);
  }
}

TEST_CASE("a derivative that is not a number is handed on, not swallowed") {
  for (GateForm form : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid}) {
    const Gate<double> gate{form, -5, -1, 0, 0};
    CHECK(std::isnan(decay_reverse(gate, decay(gate), std::nan("")).x));
  }
}

TEST_CASE("derivatives in double are finite and have the right limits at extreme gates") {
  for (GateForm form : {GateForm::softplus, GateForm::bounded})
    for (double A_log : {-infinity, -1e30, -10.0, 6.0, 88.0, 700.0, 1e4, 3e38})
      for (double x : {-3e38, -1e3, -88.0, -1.0, 1e-3, 88.0, 1e3, 3e38}) {
        const Gate<double> gate{form, -5, x, A_log, 0};
        const Decay<double> value = decay(gate);
        // what the recurrence sends back is alpha times something finite
        const GateGradient<double> d = decay_reverse(gate, value, value.alpha * 3.0);
        INFO(name(form) << " A_log " << A_log << " x " << x);
        CHECK(std::isfinite(d.x));
        CHECK(std::isfinite(d.A_log));
        if (A_log == -infinity) {
          CHECK((d.x == 0 && d.A_log == 0));
          const Gate<Quad> wide{form, -5, x, A_log, 0};
          const GateGradient<Quad> same = decay_reverse(wide, decay(wide), Quad(3));
          CHECK((same.x == 0 && same.A_log == 0));
        }
        if (form == GateForm::softplus && value.alpha == 0) CHECK((d.x == 0 && d.A_log == 0));
      }
}

TEST_CASE("beta maps and their derivatives are right from -40 to 40") {
  for (BetaForm form : {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid})
    for (double x = -40; x <= 40; x += 0.625) {
      const Exact s = 1 / (1 + exp(-Exact(x))), factor = form == BetaForm::twice_sigmoid ? 2 : 1;
      const Exact beta = form == BetaForm::value ? Exact(x) : Exact(factor * s);
      const Exact slope = form == BetaForm::value ? Exact(1) : Exact(factor * s * (1 - s));
      CHECK(relative_error(beta_of(form, x), beta) <= 4 * 0x1p-52);
      CHECK(relative_error(beta_reverse(form, x, 1.0), slope) <= 8 * 0x1p-52);
    }
}

TEST_CASE("normalisation divides by the root of the sum of squares plus 1e-6, zero vectors included") {
  const std::vector<double> x{3, 4}, zero{0, 0};
  const std::vector<double> y = normalised<double>(x);
  CHECK(relative_error(y[0], 3 / sqrt(Exact(25) + Exact(l2norm_epsilon))) <= 4 * 0x1p-52);
  CHECK(relative_error(y[1], 4 / sqrt(Exact(25) + Exact(l2norm_epsilon))) <= 4 * 0x1p-52);
  CHECK(normalised<double>(zero) == zero);
  // at zero the map is x / 1e-3
  CHECK(normalised_reverse<double>(zero, std::vector<double>{1, -2})[1] == Approx(-2000).epsilon(4 * 0x1p-52));
}
