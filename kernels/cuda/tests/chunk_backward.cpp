// The backward pass on an emulated multiprocessor against the adjoint of the token recurrence, and that against differences.

#include "emulated_backward.hpp"
#include "gradients.hpp"

#include <utility>

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

int rounds = 0; ///< run so far

/// `sharing`: as for emulate_backward.
template <int K, int pieces, bool half_precision, bool narrow = false> void run(const Case& test, Made& made, unsigned sharing) {
  rounds += emulate_backward<K, pieces, half_precision, narrow>(backward_arguments(test, made), sharing);
}

/// Relative L2 errors; NaN where a number was not written.
template <int K, int pieces, bool half_precision = false, bool narrow = false>
std::map<Input, double> errors(Case test, unsigned sharing = 1) {
  test.input = half_precision ? Format::fp16 : Format::bf16;
  Made made = make(test);
  run<K, pieces, half_precision, narrow>(test, made, sharing);
  return gradient_errors(test, made);
}

// A wrong index gives errors of order one. Roundings of bf16 operands give about 2^-8, of two-term ones 2^-16.
constexpr double bf16_bound = 0x1p-5, two_term_bound = 0x1p-12;

void check(const std::map<Input, double>& errors, double bound) {
  for (const auto& [which, error] : errors) {
    INFO("d " << name(which));
    CHECK(error <= bound);
  }
}

} // namespace

TEST_CASE("the adjoint in double agrees with differences") {
  const Case test{.shape = {.B = 1, .T = 6, .H = 1, .HV = 1, .K = 4, .V = 3},
                  .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.5f},
                  .gate_fp32 = true};
  Made made = make(test);
  const auto exact = truth(test, made);
  const auto loss = [&] {
    const auto result = cuda::recurrence_fp64(made.in, 0, 0);
    double sum = 0;
    for (std::size_t e = 0; e < result.o.size(); ++e) sum += result.o[e] * load(made.d_o.view, static_cast<std::int64_t>(e));
    for (std::size_t e = 0; e < result.state.size(); ++e) sum += result.state[e] * load(made.d_state.view, static_cast<std::int64_t>(e));
    return sum;
  };
  for (Input which : gradients) {
    const TensorView view = made.in[which];
    for (std::int64_t e = 0; e < view.elements(); ++e) {
      const float x = load(view, e), step = 0x1p-9f;
      store(view, e, x + step);
      const double above = load(view, e), up = loss();
      store(view, e, x - step);
      const double below = load(view, e), down = loss();
      store(view, e, x);
      INFO(name(which) << ' ' << e);
      CHECK(exact.at(which)[static_cast<std::size_t>(e)] == Approx((up - down) / (above - below)).epsilon(1e-3).margin(1e-3));
    }
  }
}

TEST_CASE("a tail and one segment agree with the adjoint") {
  const Case test{.shape = {.B = 1, .T = 21, .H = 1, .HV = 1, .K = 64, .V = 16}, .options = {.l2norm = true, .scale = 0.125f}};
  check(errors<64, 1>(test), bf16_bound);
  check(errors<64, 2>(test), two_term_bound);
}

TEST_CASE("several segments agree with the adjoint") {
  const Case test{.shape = {.B = 1, .T = 150, .H = 1, .HV = 1, .K = 128, .V = 32},
                  .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.0884f},
                  .gate_center = -3};
  check(errors<128, 1>(test), bf16_bound);
  check(errors<128, 2>(test), two_term_bound);
}

TEST_CASE("packed members of length 0 and 1, grouped heads and V-first states agree with the adjoint") {
  const Case test{.shape = {.B = 1, .T = 148, .H = 2, .HV = 4, .K = 64, .V = 32},
                  .options = {.gate = GateForm::softplus, .beta = BetaForm::twice_sigmoid, .l2norm = true, .scale = 0.125f},
                  .cu_seqlens = {0, 0, 17, 18, 18, 148},
                  .gate_fp32 = true,
                  .v_first = true,
                  .gate_center = -3};
  check(errors<64, 2>(test), two_term_bound);
}

TEST_CASE("a cotangent that is not a number reaches no later token") {
  const Case test{.shape = {.B = 1, .T = 80, .H = 1, .HV = 1, .K = 64, .V = 32},
                  .options = {.l2norm = true, .scale = 0.125f},
                  .input = Format::bf16,
                  .d_state = false};
  for (std::int64_t place : {std::int64_t{5}, std::int64_t{37}, std::int64_t{63}}) {
    const unsigned sharing = place == 37 ? 1 : 0; // both forms of the sweep
    Made made = make(test), clean = make(test);
    run<64, 1, false>(test, clean, sharing);
    store(made.d_o.view, place * 32 + 3, NAN);
    run<64, 1, false>(test, made, sharing);
    for (Input which : {Input::q, Input::k, Input::v, Input::g, Input::beta}) {
      const TensorView &spoilt = made.gradient.at(which).view, &good = clean.gradient.at(which).view;
      const std::int64_t width = spoilt.elements() / 80;
      bool reached = false;
      for (std::int64_t e = 0; e < spoilt.elements(); ++e) {
        reached = reached || std::isnan(load(spoilt, e));
        if (e / width > place) REQUIRE(load(spoilt, e) == load(good, e));
      }
      INFO("d " << name(which));
      CHECK(reached);
    }
  }
}

TEST_CASE("sweeps over chunks kept in memory agree with the adjoint") {
  const Case whole{.shape = {.B = 2, .T = 150, .H = 1, .HV = 1, .K = 128, .V = 48},
                   .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.0884f},
                   .gate_center = -3};
  check(errors<128, 1>(whole, 0), bf16_bound);
  const Case packed{.shape = {.B = 1, .T = 148, .H = 2, .HV = 4, .K = 64, .V = 32},
                    .options = {.gate = GateForm::softplus, .beta = BetaForm::twice_sigmoid, .l2norm = true, .scale = 0.125f},
                    .cu_seqlens = {0, 0, 17, 18, 18, 148},
                    .gate_fp32 = true,
                    .v_first = true,
                    .gate_center = -3};
  check(errors<64, 1, true>(packed, 0), bf16_bound);
}

TEST_CASE("keys of fewer channels than a kernel has room for agree with the adjoint") {
  const Case packed{.shape = {.B = 1, .T = 148, .H = 2, .HV = 4, .K = 80, .V = 32},
                    .options = {.gate = GateForm::softplus, .beta = BetaForm::twice_sigmoid, .l2norm = true, .scale = 0.125f},
                    .cu_seqlens = {0, 0, 17, 18, 18, 148},
                    .gate_fp32 = true,
                    .v_first = true,
                    .gate_center = -3};
  check(errors<128, 2, false, true>(packed), two_term_bound);
  Case whole{.shape = {.B = 1, .T = 86, .H = 1, .HV = 1, .K = 16, .V = 32},
             .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.25f},
             .gate_center = -3};
  check(errors<128, 2, true, true>(whole), two_term_bound);
  whole.shape.K = 48, whole.gradients = Format::bf16, whole.options.gate = GateForm::absent;
  check(errors<128, 1, false, true>(whole), bf16_bound);
  whole.shape.T = 70, whole.shape.V = 16;
  whole.shape.K = 208, whole.options.gate = GateForm::log_decay;
  check(errors<256, 1, false, true>(whole), bf16_bound);
  Case grouped = packed;
  grouped.shape.K = 144, grouped.gate_fp32 = false;
  grouped.shape.T = 83, grouped.cu_seqlens = {0, 0, 17, 18, 18, 83};
  check(errors<256, 1, true, true>(grouped), bf16_bound);
}

TEST_CASE("heads taken in rounds, in memory for some of them, agree with the adjoint") {
  Case test{.shape = {.B = 1, .T = 64, .H = 2, .HV = 6, .K = 64, .V = 128},
            .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.125f},
            .gradients = Format::bf16,
            .gate_center = -3};
  rounds = 0;
  check(errors<64, 2>(test), bf16_bound);
  CHECK(std::exchange(rounds, 0) > 1);
  test.shape.H = 1, test.shape.HV = 3; // one group: its heads are dealt out
  check(errors<64, 2>(test), bf16_bound);
  CHECK(rounds > 1);
}
