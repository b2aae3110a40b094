// The chunk kernel on an emulated multiprocessor against the token recurrence.

#include "emulated_forward.hpp"
#include "owned.hpp"

#include <catch2/catch.hpp>
#include <limits>
#include <random>

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

struct Case {
  Shape shape;
  Options options;
  std::vector<std::int64_t> cu_seqlens;
  bool gate_fp32 = false, initial = true, v_first = false;
  float gate_center = 0, gate_spread = 1;
  float key_spread = 0;                          ///< if not 0, around one direction
  std::uniform_real_distribution<float> betas{}; ///< with key_spread
};

/// A case's tensors, and what the emulated kernel made of them.
struct Emulated {
  Owned q, k, v, g, beta, A_log, bias, h0, o, h;
  Inputs in;
  std::int64_t N;

  Emulated(const Case& test, std::int64_t sequences)
      : q(Format::bf16, shape_of(Input::q, test.shape, sequences)), k(Format::bf16, shape_of(Input::k, test.shape, sequences)),
        v(Format::bf16, shape_of(Input::v, test.shape, sequences)),
        g(test.gate_fp32 ? Format::fp32 : Format::bf16, shape_of(Input::g, test.shape, sequences)),
        beta(Format::bf16, shape_of(Input::beta, test.shape, sequences)),
        A_log(Format::fp32, shape_of(Input::A_log, test.shape, sequences)),
        bias(Format::fp32, shape_of(Input::dt_bias, test.shape, sequences)), h0(Format::fp32, state_shape(test, sequences)),
        o(Format::bf16, shape_of(Output::o, test.shape, sequences)), h(Format::fp32, state_shape(test, sequences)), N(sequences) {
    std::mt19937 engine(7);
    std::normal_distribution<float> normal;
    const auto gauss = [&] { return normal(engine); };
    for (Owned* tensor : {&q, &k, &v, &beta, &bias, &h0}) tensor->fill(gauss);
    if (!test.options.l2norm) k.fill([&] { return gauss() / std::sqrt(static_cast<float>(test.shape.K)); });
    g.fill([&] {
      const float x = test.gate_center + test.gate_spread * gauss();
      return test.options.gate == GateForm::log_decay ? -std::fabs(x) : x;
    });
    A_log.fill([&] { return 0.3f * gauss(); });
    if (test.key_spread != 0) {
      std::vector<float> direction(static_cast<std::size_t>(test.shape.K));
      for (float& x : direction) x = gauss();
      for (std::int64_t i = 0; i < k.view.elements(); ++i)
        store(k.view, i, direction[static_cast<std::size_t>(i % test.shape.K)] + test.key_spread * gauss());
      auto betas = test.betas;
      beta.fill([&] { return betas(engine); });
    }
    in = {.shape = test.shape, .options = test.options, .tensor = {}, .cu_seqlens = test.cu_seqlens};
    in[Input::q] = q.view, in[Input::k] = k.view, in[Input::v] = v.view, in[Input::g] = g.view, in[Input::beta] = beta.view;
    if (parametric()) in[Input::A_log] = A_log.view, in[Input::dt_bias] = bias.view;
    if (test.initial) in[Input::initial_state] = h0.view;
  }
  static std::array<std::int64_t, 4> state_shape(const Case& test, std::int64_t N) {
    const Shape& s = test.shape;
    return test.v_first ? std::array{N, s.HV, s.V, s.K} : shape_of(Input::initial_state, s, N);
  }
  bool parametric() const { return in.options.gate == GateForm::bounded || in.options.gate == GateForm::softplus; }
};

std::int64_t sequences_of(const Case& test) {
  return test.cu_seqlens.empty() ? test.shape.B : static_cast<std::int64_t>(test.cu_seqlens.size()) - 1;
}

template <int K, int pieces>
void run(Emulated& data, const Case& test, int consumers, int producers, int stages, unsigned sharing = 1, int gangs = 0) {
  const Shape& s = test.shape;
  cuda::ForwardArguments args;
  args.q = row_view(data.q.view), args.k = row_view(data.k.view), args.v = row_view(data.v.view), args.g = row_view(data.g.view);
  args.beta = row_view(data.beta.view), args.o = row_view(data.o.view);
  if (data.parametric()) args.A_log = static_cast<float*>(data.A_log.view.data), args.dt_bias = static_cast<float*>(data.bias.view.data);
  if (test.initial) args.initial_state = static_cast<float*>(data.h0.view.data);
  args.final_state = static_cast<float*>(data.h.view.data);
  args.cu_seqlens = test.cu_seqlens.empty() ? nullptr : test.cu_seqlens.data();
  args.N = data.N, args.T = s.T, args.H = static_cast<int>(s.H), args.HV = static_cast<int>(s.HV), args.K = static_cast<int>(s.K),
  args.V = static_cast<int>(s.V);
  args.gate = static_cast<cuda::Gate>(test.options.gate), args.beta_form = static_cast<cuda::Beta>(test.options.beta);
  args.gate_format = stored(data.g.view.format), args.beta_format = cuda::Stored::bf16;
  args.qkv_format = args.output_format = cuda::Stored::bf16;
  args.l2norm = test.options.l2norm, args.v_first = test.v_first;
  args.lower_bound = test.options.lower_bound, args.scale = test.options.scale;
  emulate_forward<K, pieces, false>(args, {consumers, producers, stages, sharing, gangs});
}

/// Worst relative error over heads and sequences of o and the state, by a kernel that has room for K channels.
template <int K, int pieces>
std::pair<double, double> worst_errors(const Case& test, int consumers, int producers, int stages, unsigned sharing = 1) {
  Emulated data(test, sequences_of(test));
  run<K, pieces>(data, test, consumers, producers, stages, sharing);
  return errors_against_recurrence(data, test);
}

/// Makes one number of an input NaN or infinite, and counts the numbers of o that thereby changed before that token or outside what
/// may see it (`column`: of v, else all columns), and those at and after it that do not show it.
struct Spread {
  int strayed = 0, hidden = 0;
};
template <int K, int pieces> Spread spread_of(Input input, std::int64_t token, std::int64_t channel, float value) {
  const Case test{.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = K, .V = 32},
                  .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.125f},
                  .cu_seqlens = {}};
  Emulated clean(test, 1), poisoned(test, 1);
  run<K, pieces>(clean, test, 2, 2, 3);
  const TensorView& view = poisoned.in[input];
  store(view, view.offset(0, token, 0, input == Input::beta ? 0 : channel), value);
  run<K, pieces>(poisoned, test, 2, 2, 3);
  Spread spread;
  for (std::int64_t t = 0; t < test.shape.T; ++t)
    for (std::int64_t j = 0; j < test.shape.V; ++j) {
      const float before = load(clean.o.view, clean.o.view.offset(0, t, 0, j)),
                  after = load(poisoned.o.view, poisoned.o.view.offset(0, t, 0, j));
      const bool reached = input == Input::q ? t == token : t >= token && (input != Input::v || j == channel);
      if (!reached && before != after) ++spread.strayed;
      if (reached && std::isfinite(after)) ++spread.hidden;
    }
  return spread;
}

// A wrong index gives errors of order one. Roundings of bf16 operands give about 2^-8, of mixed ones 2^-11; o is stored
// in bf16 (2^-9). The bounds lie between.
constexpr double bf16_bound = 0x1p-6, mixed_bound = 0x1p-10;

} // namespace

TEST_CASE("one chunk and a tail agree with the recurrence") {
  const Case test{
      .shape = {.B = 1, .T = 21, .H = 1, .HV = 1, .K = 64, .V = 16}, .options = {.l2norm = true, .scale = 0.125f}, .cu_seqlens = {}};
  const auto [o, state] = worst_errors<64, 1>(test, 1, 1, 2);
  CHECK(o <= bf16_bound);
  CHECK(state <= bf16_bound);
}

TEST_CASE("mixed operands leave little but the rounding of the output") {
  const Case test{.shape = {.B = 1, .T = 50, .H = 1, .HV = 1, .K = 128, .V = 32},
                  .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.0884f},
                  .cu_seqlens = {}};
  const auto [o, state] = worst_errors<128, cuda::mixed_terms>(test, 2, 2, 3);
  CHECK(o <= 0x1p-8);
  CHECK(state <= mixed_bound);
}

TEST_CASE("near-identical keys, from an empty state, cost mixed operands less than the rounding of the output") {
  const Case test{.shape = {.B = 1, .T = 800, .H = 1, .HV = 1, .K = 64, .V = 16},
                  .options = {.l2norm = true, .scale = 0.125f},
                  .cu_seqlens = {},
                  .gate_fp32 = true,
                  .initial = false,
                  .gate_spread = 1e-3f,
                  .key_spread = 0.02f,
                  .betas = std::uniform_real_distribution<float>(0.9f, 1.0f)};
  const auto [o, state] = worst_errors<64, cuda::mixed_terms>(test, 1, 2, 3);
  INFO("o " << o << ", state " << state);
  CHECK(o <= 0.0025);
  CHECK(state <= 0.0025);
  CHECK(worst_errors<64, 1>(test, 1, 2, 3).first >= 0.01); // what bf16 operands cost here
}

TEST_CASE("packed members of length 0 and 1, grouped heads, slices and a V-first state agree with the recurrence") {
  const Case test{.shape = {.B = 1, .T = 58, .H = 1, .HV = 2, .K = 64, .V = 32},
                  .options = {.gate = GateForm::softplus, .beta = BetaForm::twice_sigmoid, .l2norm = true, .scale = 0.125f},
                  .cu_seqlens = {0, 0, 17, 18, 18, 58},
                  .gate_fp32 = true,
                  .v_first = true};
  const auto [o, state] = worst_errors<64, cuda::mixed_terms>(test, 1, 2, 2);
  CHECK(o <= 0x1p-8);
  CHECK(state <= mixed_bound);
}

TEST_CASE("decay that underflows within a chunk gives finite results that agree with the recurrence") {
  const Case test{.shape = {.B = 2, .T = 33, .H = 1, .HV = 1, .K = 64, .V = 16},
                  .options = {.scale = 1},
                  .cu_seqlens = {},
                  .gate_fp32 = true,
                  .initial = false,
                  .gate_center = 60,
                  .gate_spread = 40};
  const auto [o, state] = worst_errors<64, 1>(test, 1, 3, 4);
  CHECK(o <= bf16_bound);
  CHECK(state <= bf16_bound);
}

TEST_CASE("blocks of a cluster that share their chunks agree with the recurrence") {
  const Case test{.shape = {.B = 1, .T = 150, .H = 1, .HV = 2, .K = 64, .V = 64},
                  .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.125f},
                  .cu_seqlens = {0, 130, 130, 133, 150}};
  for (unsigned sharing : {2u, 4u}) {
    const auto [o, state] = worst_errors<64, cuda::mixed_terms>(test, 4 / static_cast<int>(sharing), 1, 4, sharing);
    CHECK(o <= 0x1p-8);
    CHECK(state <= mixed_bound);
  }
}

TEST_CASE("what is not finite reaches its own token and later ones, and no other column of values") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta})
    for (const std::int64_t token : {0, 5, 15, 16, 30, 39}) {
      const Spread one = spread_of<64, 1>(input, token, 21, nan), two = spread_of<64, cuda::mixed_terms>(input, token, 21, nan);
      INFO(name(input) << ", token " << token);
      CHECK(one.strayed == 0);
      CHECK(one.hidden == 0);
      CHECK(two.strayed == 0);
      CHECK(two.hidden == 0);
    }
  CHECK(spread_of<64, 1>(Input::v, 11, 7, infinite).strayed == 0);
  CHECK(spread_of<64, cuda::mixed_terms>(Input::v, 11, 7, -infinite).strayed == 0);
}

TEST_CASE("chunks dealt out evenly to gangs, with states handed over, give the bits of a gang for each unit") {
  Case test{.shape = {.B = 1, .T = 83, .H = 2, .HV = 4, .K = 64, .V = 64},
            .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.125f},
            .cu_seqlens = {}};
  const auto same_bits = [&]<int pieces>(int sharing, int gangs, int B) {
    test.shape.B = B;
    Emulated whole(test, B), dealt(test, B);
    run<64, pieces>(whole, test, 4 / sharing, 1, 4, static_cast<unsigned>(sharing));
    run<64, pieces>(dealt, test, 4 / sharing, 1, 4, static_cast<unsigned>(sharing), gangs);
    CHECK(whole.o.bytes == dealt.o.bytes);
    CHECK(whole.h.bytes == dealt.h.bytes);
  };
  for (const auto& [sharing, gangs, B] : std::vector<std::array<int, 3>>{{1, 3, 1}, {2, 3, 1}, {4, 3, 2}, {2, 7, 2}, {2, 8, 2}})
    same_bits.operator()<1>(sharing, gangs, B);
  same_bits.operator()<cuda::mixed_terms>(2, 3, 1);
}

TEST_CASE("keys of fewer channels than a kernel has room for agree with the recurrence, and nothing is written beside the state") {
  const auto bounded = [](std::int64_t K, std::int64_t V) {
    return Case{.shape = {.B = 2, .T = 37, .H = 1, .HV = 2, .K = K, .V = V},
                .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.125f},
                .cu_seqlens = {}};
  };
  for (const std::int64_t K : {16, 48}) {
    const auto [o, state] = worst_errors<64, 1>(bounded(K, 32), 2, 2, 3);
    CHECK(o <= bf16_bound);
    CHECK(state <= bf16_bound);
  }
  const Case packed{.shape = {.B = 1, .T = 58, .H = 1, .HV = 2, .K = 80, .V = 32},
                    .options = {.gate = GateForm::softplus, .beta = BetaForm::twice_sigmoid, .l2norm = true, .scale = 0.125f},
                    .cu_seqlens = {0, 0, 17, 18, 18, 58},
                    .gate_fp32 = true,
                    .v_first = true};
  const auto [packed_o, packed_state] = worst_errors<128, cuda::mixed_terms>(packed, 1, 2, 2);
  CHECK(packed_o <= 0x1p-8);
  CHECK(packed_state <= mixed_bound);
  for (const std::int64_t K : {144, 208, 240}) {
    Case wide = bounded(K, 16);
    wide.gate_fp32 = K == 208;
    const auto [o, state] = worst_errors<256, cuda::mixed_terms>(wide, 1, 2, 3);
    CHECK(o <= 0x1p-8);
    CHECK(state <= mixed_bound);
    CHECK(worst_errors<256, 1>(wide, 1, 1, 2).first <= bf16_bound);
  }
}

TEST_CASE("a rate that overflows does not come from channels that are not there") {
  const Case test{.shape = {.B = 1, .T = 20, .H = 1, .HV = 1, .K = 48, .V = 16},
                  .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.125f},
                  .cu_seqlens = {}};
  Emulated data(test, 1);
  store(data.A_log.view, 0, 100.0f); // exp of it is infinite: decays are 1 or e^-5, but NaN where the gate's argument is 0
  run<64, 1>(data, test, 1, 1, 2);
  for (std::int64_t e = 0; e < data.o.view.elements(); ++e) REQUIRE(std::isfinite(load(data.o.view, e)));
}
