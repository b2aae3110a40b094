// The chunk kernel on an emulated multiprocessor against the token recurrence.

#include "../chunk_producer.cuh"
#include "../recurrence_fp64.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace kdacheck;

namespace {

struct Case {
  Shape shape;
  Options options;
  std::vector<std::int64_t> cu_seqlens;
  bool gate_fp32 = false, initial = true, v_first = false;
  float gate_center = 0, gate_spread = 1;
};

/// A tensor with its own storage.
struct Owned {
  std::vector<unsigned char> bytes;
  TensorView view;
  Owned(Format format, std::array<std::int64_t, 4> shape) : view{nullptr, format, shape, contiguous_strides(shape)} {
    bytes.assign(static_cast<std::size_t>(view.elements()) * storage_bytes(format), 0xff);
    view.data = bytes.data();
  }
  template <class Draw> Owned& fill(Draw draw) {
    for (std::int64_t i = 0; i < view.elements(); ++i) store(view, i, draw());
    return *this;
  }
};

cuda::View row_view(const TensorView& view) { return {view.data, view.stride[0], view.stride[1], view.stride[2]}; }

cuda::Stored stored(Format format) { return format == Format::fp32 ? cuda::Stored::fp32 : cuda::Stored::bf16; }

double relative_error(double difference, double norm) { return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference); }

/// Worst relative error over heads and sequences of o and the state.
template <int K, int pieces>
std::pair<double, double> worst_errors(const Case& test, int consumers, int producers, int stages, unsigned sharing = 1) {
  std::mt19937 engine(7);
  std::normal_distribution<float> normal;
  const Shape& s = test.shape;
  const std::int64_t N = test.cu_seqlens.empty() ? s.B : static_cast<std::int64_t>(test.cu_seqlens.size()) - 1;
  const auto gauss = [&] { return normal(engine); };
  Owned q(Format::bf16, shape_of(Input::q, s, N)), k(Format::bf16, shape_of(Input::k, s, N)), v(Format::bf16, shape_of(Input::v, s, N));
  Owned g(test.gate_fp32 ? Format::fp32 : Format::bf16, shape_of(Input::g, s, N)), beta(Format::bf16, shape_of(Input::beta, s, N));
  Owned A_log(Format::fp32, shape_of(Input::A_log, s, N)), bias(Format::fp32, shape_of(Input::dt_bias, s, N));
  const auto state_shape = test.v_first ? std::array{N, s.HV, s.V, s.K} : shape_of(Input::initial_state, s, N);
  Owned h0(Format::fp32, state_shape), o(Format::bf16, shape_of(Output::o, s, N)), h(Format::fp32, state_shape);
  for (Owned* tensor : {&q, &k, &v, &beta, &bias, &h0}) tensor->fill(gauss);
  if (!test.options.l2norm) k.fill([&] { return gauss() / std::sqrt(static_cast<float>(s.K)); });
  g.fill([&] {
    const float x = test.gate_center + test.gate_spread * gauss();
    return test.options.gate == GateForm::log_decay ? -std::fabs(x) : x;
  });
  A_log.fill([&] { return 0.3f * gauss(); });

  Inputs in{.shape = s, .options = test.options, .tensor = {}, .cu_seqlens = test.cu_seqlens};
  in[Input::q] = q.view, in[Input::k] = k.view, in[Input::v] = v.view, in[Input::g] = g.view, in[Input::beta] = beta.view;
  const bool parametric = test.options.gate == GateForm::bounded || test.options.gate == GateForm::softplus;
  if (parametric) in[Input::A_log] = A_log.view, in[Input::dt_bias] = bias.view;
  if (test.initial) in[Input::initial_state] = h0.view;

  cuda::ForwardArguments args;
  args.q = row_view(q.view), args.k = row_view(k.view), args.v = row_view(v.view), args.g = row_view(g.view);
  args.beta = row_view(beta.view), args.o = row_view(o.view);
  if (parametric) args.A_log = static_cast<float*>(A_log.view.data), args.dt_bias = static_cast<float*>(bias.view.data);
  if (test.initial) args.initial_state = static_cast<float*>(h0.view.data);
  args.final_state = static_cast<float*>(h.view.data);
  args.cu_seqlens = test.cu_seqlens.empty() ? nullptr : test.cu_seqlens.data();
  args.N = N, args.T = s.T, args.H = static_cast<int>(s.H), args.HV = static_cast<int>(s.HV), args.K = K, args.V = static_cast<int>(s.V);
  args.gate = static_cast<cuda::Gate>(test.options.gate), args.beta_form = static_cast<cuda::Beta>(test.options.beta);
  args.gate_format = stored(g.view.format), args.beta_format = cuda::Stored::bf16;
  args.qkv_format = args.output_format = cuda::Stored::bf16;
  args.l2norm = test.options.l2norm, args.v_first = test.v_first;
  args.lower_bound = test.options.lower_bound, args.scale = test.options.scale;
  args.slices = static_cast<int>(s.V / 16 / consumers), args.consumer_warps = consumers, args.producer_warps = producers,
  args.stages = stages;
  args.sharing = static_cast<int>(sharing);
  args.staged = sharing > 2;
  const auto blocks = static_cast<unsigned>(N * s.HV * args.slices);
  const int shared = cuda::chunk_shared_bytes<K, pieces>(stages, producers, consumers, test.gate_fp32 ? 4 : 2, args.staged);
  for (unsigned block = 0; block < blocks; block += sharing)
    cuda::simt::run_cluster(block, sharing, static_cast<unsigned>(32 * (consumers + producers)), static_cast<std::size_t>(shared),
                            [&] { cuda::chunk_forward_block<K, pieces, false>(args); });

  std::pair<double, double> worst{0, 0};
  for (std::int64_t n = 0; n < N; ++n)
    for (std::int64_t head = 0; head < s.HV; ++head) {
      const auto truth = cuda::recurrence_fp64(in, n, head, test.v_first);
      const std::int64_t first = test.cu_seqlens.empty() ? 0 : test.cu_seqlens[static_cast<std::size_t>(n)];
      double difference = 0, norm = 0;
      for (std::size_t e = 0; e < truth.o.size(); ++e) {
        const auto row = static_cast<std::int64_t>(e) / s.V, j = static_cast<std::int64_t>(e) % s.V;
        const double d = load(o.view, o.view.offset(test.cu_seqlens.empty() ? n : 0, first + row, head, j)) - truth.o[e];
        difference += d * d, norm += truth.o[e] * truth.o[e];
      }
      if (const double error = relative_error(difference, norm); !(error <= worst.first)) worst.first = error;
      difference = norm = 0;
      for (std::int64_t c = 0; c < s.K; ++c)
        for (std::int64_t j = 0; j < s.V; ++j) {
          const double exact = truth.state[static_cast<std::size_t>(c * s.V + j)];
          const double d = load(h.view, test.v_first ? h.view.offset(n, head, j, c) : h.view.offset(n, head, c, j)) - exact;
          difference += d * d, norm += exact * exact;
        }
      if (const double error = relative_error(difference, norm); !(error <= worst.second)) worst.second = error;
    }
  return worst;
}

// A wrong index gives errors of order one. Roundings of bf16 operands give about 2^-8, of two-term ones 2^-16; o is stored
// in bf16 (2^-9). The bounds lie between.
constexpr double bf16_bound = 0x1p-6, two_term_bound = 0x1p-13;

} // namespace

TEST_CASE("one chunk and a tail agree with the recurrence") {
  const Case test{
      .shape = {.B = 1, .T = 21, .H = 1, .HV = 1, .K = 64, .V = 16}, .options = {.l2norm = true, .scale = 0.125f}, .cu_seqlens = {}};
  const auto [o, state] = worst_errors<64, 1>(test, 1, 1, 2);
  CHECK(o <= bf16_bound);
  CHECK(state <= bf16_bound);
}

TEST_CASE("two terms an operand leave only the rounding of the output") {
  const Case test{.shape = {.B = 1, .T = 50, .H = 1, .HV = 1, .K = 128, .V = 32},
                  .options = {.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.0884f},
                  .cu_seqlens = {}};
  const auto [o, state] = worst_errors<128, 2>(test, 2, 2, 3);
  CHECK(o <= 0x1p-8);
  CHECK(state <= two_term_bound);
}

TEST_CASE("packed members of length 0 and 1, grouped heads, slices and a V-first state agree with the recurrence") {
  const Case test{.shape = {.B = 1, .T = 58, .H = 1, .HV = 2, .K = 64, .V = 32},
                  .options = {.gate = GateForm::softplus, .beta = BetaForm::twice_sigmoid, .l2norm = true, .scale = 0.125f},
                  .cu_seqlens = {0, 0, 17, 18, 18, 58},
                  .gate_fp32 = true,
                  .v_first = true};
  const auto [o, state] = worst_errors<64, 2>(test, 1, 2, 2);
  CHECK(o <= 0x1p-8);
  CHECK(state <= two_term_bound);
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
    const auto [o, state] = worst_errors<64, 2>(test, 4 / static_cast<int>(sharing), 1, 4, sharing);
    CHECK(o <= 0x1p-8);
    CHECK(state <= two_term_bound);
  }
}
