// The general rule's chunk kernel on an emulated multiprocessor against the token recurrence.

#include "../dplr/dplr_producer.cuh"
#include "owned.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

struct Case {
  Shape shape;
  Options options;
  std::vector<std::int64_t> cu_seqlens{};
  Format input = Format::bf16, gate = Format::bf16;
  bool initial = true, v_first = false;
  float gate_center = 0, gate_spread = 1, strength = 0.5f; ///< strength: |a|, |b|
};

struct Cut {
  int consumers = 1, producers = 1, stages = 2, sharing = 1;
  int gangs = 0; ///< if not 0, chunks are dealt out to as many
};

/// A case's tensors, and what the emulated kernel makes of them.
struct Emulated {
  const Case test;
  const std::int64_t N;
  std::array<Owned, all_inputs.size()> owned;
  Owned o, h;
  Inputs in;

  explicit Emulated(const Case& what)
      : test(what), N(test.cu_seqlens.empty() ? test.shape.B : static_cast<std::int64_t>(test.cu_seqlens.size()) - 1),
        o(test.input, shape_of(Output::o, test.shape, N)), h(Format::fp32, state_shape()),
        in{.shape = test.shape, .options = test.options, .tensor = {}, .cu_seqlens = test.cu_seqlens} {
    std::mt19937 engine(7);
    std::normal_distribution<float> normal;
    const Options& options = test.options;
    const bool parametric = options.gate == GateForm::bounded || options.gate == GateForm::softplus;
    const float small = 1 / std::sqrt(static_cast<float>(test.shape.K));
    const auto fill = [&](Input input, Format format, auto draw) {
      Owned& tensor = owned[static_cast<std::size_t>(input)] =
          Owned(format, input == Input::initial_state ? state_shape() : shape_of(input, test.shape, N));
      for (std::int64_t i = 0; i < tensor.view.elements(); ++i) store(tensor.view, i, draw());
      in[input] = tensor.view;
    };
    const auto gauss = [&] { return normal(engine); };
    fill(Input::q, test.input, gauss);
    fill(Input::k, test.input, [&] { return options.l2norm ? gauss() : small * gauss(); });
    fill(Input::v, test.input, gauss);
    for (Input input : {Input::a, Input::b}) fill(input, test.input, [&] { return test.strength * small * gauss(); });
    if (options.gate != GateForm::absent)
      fill(Input::g, test.gate, [&] {
        const float x = test.gate_center + test.gate_spread * gauss();
        return options.gate == GateForm::log_decay ? -std::fabs(x) : x;
      });
    if (parametric) fill(Input::A_log, Format::fp32, [&] { return 0.3f * gauss(); });
    if (parametric) fill(Input::dt_bias, Format::fp32, gauss);
    if (test.initial) fill(Input::initial_state, Format::fp32, gauss);
  }

  std::array<std::int64_t, 4> state_shape() const {
    const Shape& s = test.shape;
    return test.v_first ? std::array{N, s.HV, s.V, s.K} : shape_of(Input::initial_state, s, N);
  }

  template <int K> void run(Cut cut) {
    const Shape& s = test.shape;
    cuda::ForwardArguments args;
    args.q = row_view(in[Input::q]), args.k = row_view(in[Input::k]), args.v = row_view(in[Input::v]), args.a = row_view(in[Input::a]);
    args.b = row_view(in[Input::b]), args.o = row_view(o.view);
    if (in[Input::g]) args.g = row_view(in[Input::g]), args.gate_format = stored(test.gate);
    args.A_log = static_cast<const float*>(in[Input::A_log].data), args.dt_bias = static_cast<const float*>(in[Input::dt_bias].data);
    args.initial_state = static_cast<const float*>(in[Input::initial_state].data);
    args.final_state = static_cast<float*>(h.view.data);
    args.cu_seqlens = test.cu_seqlens.empty() ? nullptr : test.cu_seqlens.data();
    args.N = N, args.T = s.T, args.H = static_cast<int>(s.H), args.HV = static_cast<int>(s.HV), args.K = K, args.V = static_cast<int>(s.V);
    args.gate = static_cast<cuda::Gate>(test.options.gate), args.qkv_format = args.output_format = stored(test.input);
    args.dplr = true, args.l2norm = test.options.l2norm, args.v_first = test.v_first;
    args.lower_bound = test.options.lower_bound, args.scale = test.options.scale;
    args.slices = static_cast<int>(s.V / 16 / cut.consumers), args.consumer_warps = cut.consumers, args.producer_warps = cut.producers;
    args.stages = cut.stages, args.sharing = cut.sharing;
    const std::int64_t chunks = (s.T + cuda::chunk_tokens - 1) / cuda::chunk_tokens, units = N * s.HV;
    std::vector<unsigned char> handover;
    if (cut.gangs > 0) {
      args.share = static_cast<int>((units * chunks + cut.gangs - 1) / cut.gangs);
      const std::size_t head = cuda::handover_head_bytes;
      handover.assign(head + static_cast<std::size_t>(cut.gangs) * static_cast<std::size_t>(K * s.V) * 4 + 255, 0xff);
      args.handover = handover.data() + (256 - reinterpret_cast<std::uintptr_t>(handover.data()) % 256) % 256;
      std::fill(args.handover, args.handover + head, static_cast<unsigned char>(0));
    }
    const int shared =
        cuda::general_shared_bytes<K>(cut.stages, cut.producers, cut.consumers, args.gate_format == cuda::Stored::fp32 ? 4 : 2);
    for (std::int64_t block = 0; block < (cut.gangs > 0 ? cut.gangs : units) * args.slices; block += cut.sharing)
      cuda::simt::run_cluster(static_cast<unsigned>(block), static_cast<unsigned>(cut.sharing),
                              static_cast<unsigned>(32 * (cut.consumers + cut.producers)), static_cast<std::size_t>(shared), [&] {
                                if (cut.gangs > 0)
                                  cuda::general_forward_block<K, false, true>(args);
                                else if (test.input == Format::fp16)
                                  cuda::general_forward_block<K, true, false>(args);
                                else
                                  cuda::general_forward_block<K, false, false>(args);
                              });
  }
  float output(std::int64_t b, std::int64_t t, std::int64_t head, std::int64_t j) const {
    return load(o.view, o.view.offset(b, t, head, j));
  }
};

/// Worst relative error over heads and sequences of o and the state.
template <int K> std::pair<double, double> worst_errors(const Case& test, Cut cut) {
  Emulated data(test);
  data.run<K>(cut);
  const std::pair<double, double> worst = errors_against_recurrence(data, test);
  INFO("o " << worst.first << ", state " << worst.second);
  CHECK(worst.first < 1); // shows the figures of a failure
  return worst;
}

// A wrong index gives errors of order one, roundings of bf16 operands about 2^-8.
constexpr double bound = 0x1p-6;

Options usual() { return {.rule = Rule::dplr, .l2norm = true, .scale = 0.125f}; }
Options bounded() {
  Options options = usual();
  options.gate = GateForm::bounded;
  return options;
}

} // namespace

TEST_CASE("general rule: one chunk and a tail agree with the recurrence") {
  const auto [o, state] = worst_errors<64>({.shape = {.B = 1, .T = 21, .H = 1, .HV = 1, .K = 64, .V = 16}, .options = usual()}, {});
  CHECK(o <= bound);
  CHECK(state <= bound);
}

TEST_CASE("general rule: both input formats, 128 channels and a gate inside agree with the recurrence") {
  for (Format input : {Format::bf16, Format::fp16}) {
    const auto [o, state] = worst_errors<128>(
        {.shape = {.B = 2, .T = 50, .H = 1, .HV = 1, .K = 128, .V = 32}, .options = bounded(), .input = input}, {2, 2, 3});
    CHECK(o <= bound);
    CHECK(state <= bound);
  }
}

TEST_CASE("general rule: packed members of length 0 and 1, grouped heads, slices and a V-first state agree with the recurrence") {
  Options options = usual();
  options.gate = GateForm::softplus, options.l2norm = false, options.scale = 0.7f;
  const auto [o, state] = worst_errors<64>({.shape = {.B = 1, .T = 58, .H = 1, .HV = 2, .K = 64, .V = 32},
                                            .options = options,
                                            .cu_seqlens = {0, 0, 17, 18, 18, 58},
                                            .gate = Format::fp32,
                                            .v_first = true},
                                           {1, 2, 2});
  CHECK(o <= bound);
  CHECK(state <= bound);
}

TEST_CASE("general rule: decay beyond any range, and decay that passes it within a chunk, agree with the recurrence") {
  // per token, natural logarithm: hundreds; a few; some channels slow, some fast; none
  const std::vector<std::pair<float, float>> gates{{60, 40}, {5, 1}, {0, 6}, {0, 1000}};
  for (const auto& [center, spread] : gates) {
    const auto [o, state] = worst_errors<128>({.shape = {.B = 1, .T = 37, .H = 1, .HV = 1, .K = 128, .V = 16},
                                               .options = usual(),
                                               .gate = Format::fp32,
                                               .gate_center = center,
                                               .gate_spread = spread,
                                               .strength = 0.9f},
                                              {1, 3, 4});
    CHECK(o <= bound);
    CHECK(state <= bound);
  }
  Options options = usual();
  options.gate = GateForm::absent;
  const auto [o, state] = worst_errors<64>({.shape = {.B = 1, .T = 33, .H = 1, .HV = 1, .K = 64, .V = 16}, .options = options}, {});
  CHECK(o <= bound);
  CHECK(state <= bound);
}

TEST_CASE("general rule: blocks of a cluster that share their chunks agree with the recurrence") {
  for (int sharing : {2, 4}) {
    const auto [o, state] = worst_errors<64>(
        {.shape = {.B = 1, .T = 150, .H = 1, .HV = 2, .K = 64, .V = 64}, .options = bounded(), .cu_seqlens = {0, 130, 130, 133, 150}},
        {4 / sharing, 2, 4, sharing});
    CHECK(o <= bound);
    CHECK(state <= bound);
  }
}

TEST_CASE("general rule: chunks dealt out evenly to gangs give the bits of a gang for each unit") {
  Case test{.shape = {.B = 1, .T = 83, .H = 2, .HV = 4, .K = 64, .V = 64}, .options = bounded()};
  for (const auto& [sharing, gangs, B] : std::vector<std::array<int, 3>>{{1, 3, 1}, {2, 3, 1}, {4, 3, 2}, {2, 7, 2}}) {
    test.shape.B = B;
    Emulated whole(test), dealt(test);
    const Cut cut{.consumers = 4 / sharing, .producers = 1, .stages = 4, .sharing = sharing};
    Cut in_gangs = cut;
    in_gangs.gangs = gangs;
    whole.run<64>(cut);
    dealt.run<64>(in_gangs);
    CHECK(whole.o.bytes == dealt.o.bytes);
    CHECK(whole.h.bytes == dealt.h.bytes);
  }
}

TEST_CASE("general rule: later tokens, however they decay, change no bit before them") {
  const Case test{
      .shape = {.B = 1, .T = 32, .H = 1, .HV = 1, .K = 128, .V = 16}, .options = usual(), .gate = Format::fp32, .gate_spread = 0.5f};
  Emulated first(test);
  first.run<128>({1, 2, 2});
  for (float decay : {0.0f, -100.0f, -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (std::int64_t token : {7, 12, 21}) {
      Emulated changed(test);
      const TensorView& g = changed.in[Input::g];
      for (std::int64_t c = 0; c < 70; ++c) store(g, g.offset(0, token, 0, c), decay);
      changed.run<128>({1, 2, 2});
      int differ = 0, finite = 0;
      for (std::int64_t t = 0; t < test.shape.T; ++t)
        for (std::int64_t j = 0; j < 16; ++j) {
          if (t < token && first.output(0, t, 0, j) != changed.output(0, t, 0, j)) ++differ;
          if (t >= token && std::isfinite(changed.output(0, t, 0, j))) ++finite;
        }
      CHECK(differ == 0);
      CHECK((finite == 0) == std::isnan(decay));
    }
}

TEST_CASE("general rule: what is not finite in one token shows there and not before") {
  const Case test{.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 64, .V = 32}, .options = bounded()};
  Emulated clean(test);
  clean.run<64>({2, 2, 3});
  for (Input input : {Input::q, Input::k, Input::v, Input::a, Input::b, Input::g})
    for (float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
      for (std::int64_t token : {0, 22}) {
        if (input == Input::g && std::isinf(value)) continue; // a gate that is open
        Emulated poisoned(test);
        const TensorView& view = poisoned.in[input];
        store(view, view.offset(0, token, 0, 5), value);
        poisoned.run<64>({2, 2, 3});
        int strayed = 0, hidden = 0;
        for (std::int64_t t = 0; t < test.shape.T; ++t)
          for (std::int64_t j = 0; j < test.shape.V; ++j) {
            const bool reached = input == Input::q ? t == token : t >= token && (input != Input::v || j == 5);
            if (!reached && clean.output(0, t, 0, j) != poisoned.output(0, t, 0, j)) ++strayed;
            // a reaches what is read later; b, what has been written before
            const bool shows = input == Input::a ? t > token : input == Input::b ? token > 0 || test.initial : true;
            if (reached && shows && std::isfinite(poisoned.output(0, t, 0, j))) ++hidden;
          }
        INFO(name(input) << ' ' << value << " at " << token);
        CHECK(strayed == 0);
        CHECK(hidden == 0);
      }
}
