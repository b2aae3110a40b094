// The backward pass on an emulated multiprocessor against the adjoint of the token recurrence, and that against differences.

#include "../backward_gradients.cuh"
#include "../backward_parameters.cuh"
#include "../backward_sweeps.cuh"
#include "owned.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <random>

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

struct Case {
  Shape shape;
  Options options;
  std::vector<std::int64_t> cu_seqlens = {};
  bool gate_fp32 = false, initial = true, v_first = false, d_o = true, d_state = true;
  float gate_center = 0, gate_spread = 1;
  Format gradients = Format::fp32;
};

constexpr std::array gradients{Input::q, Input::k, Input::v, Input::g, Input::beta, Input::A_log, Input::dt_bias, Input::initial_state};

/// Everything of one case.
struct Made {
  std::map<Input, Owned> input, gradient;
  Owned d_o, d_state;
  Inputs in;
  Cotangents cotangents;
};

Made make(const Case& test, Format format) {
  const Shape& s = test.shape;
  const std::int64_t N = test.cu_seqlens.empty() ? s.B : static_cast<std::int64_t>(test.cu_seqlens.size()) - 1;
  const auto state_shape = test.v_first ? std::array{N, s.HV, s.V, s.K} : shape_of(Input::initial_state, s, N);
  Made made{{}, {}, Owned(format, shape_of(Output::o, s, N)), Owned(Format::fp32, state_shape), {}, {}};
  std::mt19937 engine(11);
  std::normal_distribution<float> normal;
  const auto gauss = [&] { return normal(engine); };
  const bool parametric = test.options.gate == GateForm::bounded || test.options.gate == GateForm::softplus;
  made.in = {.shape = s, .options = test.options, .tensor = {}, .cu_seqlens = test.cu_seqlens};
  for (Input which : gradients) {
    if (which == Input::g && test.options.gate == GateForm::absent) continue;
    if ((which == Input::A_log || which == Input::dt_bias) && !parametric) continue;
    const bool state = which == Input::initial_state, small = which == Input::A_log || which == Input::dt_bias;
    const auto shape = state ? state_shape : shape_of(which, s, N);
    const Format own = state || small || (which == Input::g && test.gate_fp32) ? Format::fp32 : which == Input::g ? Format::bf16 : format;
    Owned& tensor = made.input.emplace(which, Owned(own, shape)).first->second;
    if (which == Input::g)
      tensor.fill([&] {
        const float x = test.gate_center + test.gate_spread * gauss();
        return test.options.gate == GateForm::log_decay ? -std::fabs(x) : x;
      });
    else if (which == Input::k && !test.options.l2norm)
      tensor.fill([&] { return gauss() / std::sqrt(static_cast<float>(s.K)); });
    else
      tensor.fill([&] { return (which == Input::A_log ? 0.3f : 1.0f) * gauss(); });
    made.gradient.emplace(which, Owned(state || small ? Format::fp32 : test.gradients, shape));
    if (!state || test.initial) made.in[which] = tensor.view;
  }
  made.d_o.fill(gauss);
  made.d_state.fill(gauss);
  if (test.d_o) made.cotangents.d_o = made.d_o.view;
  if (test.d_state) made.cotangents.d_final_state = made.d_state.view;
  return made;
}

/// Both sweeps over chunks kept in memory.
template <int K, bool half_precision>
void run_kept(const cuda::SweepArguments& states, const cuda::SweepArguments& adjoint, int gate_bytes) {
  using namespace cuda;
  const ForwardArguments& call = states.call;
  const std::int64_t slots = call.cu_seqlens != nullptr ? call.T / 16 + call.N : call.N * ((call.T + 15) / 16);
  std::vector<unsigned char> data(static_cast<std::size_t>(slots * call.HV) * kept_stage_bytes(K), 0xff);
  StageArguments stages{.call = call, .data = data.data(), .slots = slots, .warps = 3, .blocks = 2};
  const int bench = WorkbenchLayout<K, 1, Sweep::stored>::bytes(gate_bytes);
  for (unsigned block = 0; block < 2; ++block)
    simt::run_cluster(block, 1, 96, static_cast<std::size_t>(3 * bench), [&] { stages_block<K, half_precision>(stages); });
  KeptSweepArguments kept{.states = states, .adjoint = adjoint, .data = data.data(), .slots = slots};
  kept.warps = call.V % 32 == 0 ? 2 : 1, kept.slices = call.V / 16 / kept.warps, kept.ring = 3;
  for (unsigned block = 0; block < static_cast<unsigned>(2 * call.N * call.HV * kept.slices); ++block)
    simt::run_cluster(block, 1, static_cast<unsigned>(32 * kept.warps),
                      static_cast<std::size_t>(kept_shared_bytes<K>(kept.ring, kept.warps)),
                      [&] { kept_sweeps_block<K, half_precision>(kept); });
}

/// One round of launches, block by block.
template <int K, int pieces, bool half_precision, bool narrow>
void run_round(const Case& test, const cuda::BackwardArguments& part, const cuda::BackwardWorkspace& where, unsigned sharing,
               int group_heads, int group_first) {
  const Shape& s = test.shape;
  const cuda::ForwardArguments& args = part.call;
  const int consumers = args.consumer_warps;
  const auto at = [&](std::size_t offset) { return static_cast<void*>(part.workspace + offset); };

  cuda::SweepArguments sweep;
  sweep.call = args;
  sweep.rows_total = s.B * s.T;
  sweep.rows = static_cast<std::uint16_t*>(at(where.R)), sweep.states = static_cast<std::uint32_t*>(at(where.S));
  const cuda::SweepArguments states = sweep;
  sweep.rows = static_cast<std::uint16_t*>(at(where.M)), sweep.states = static_cast<std::uint32_t*>(at(where.dS));
  sweep.d_o = part.d_o, sweep.dv = part.dv, sweep.dv_format = part.dv_format;
  sweep.d_final_state = part.d_final_state, sweep.d_initial_state = part.d_initial_state;
  const auto blocks = static_cast<unsigned>(args.N * args.HV * args.slices);
  const int gate_bytes = test.gate_fp32 ? 4 : 2;
  if (sharing == 0) {
    if constexpr (pieces == 1 && !narrow) run_kept<K, half_precision>(states, sweep, gate_bytes);
  } else {
    const auto threads = static_cast<unsigned>(32 * (consumers + args.producer_warps));
    const auto shared_bytes = [&]<cuda::Sweep which> {
      return static_cast<std::size_t>(cuda::chunk_shared_bytes<K, pieces, which>(4, 2, consumers, gate_bytes, args.staged));
    };
    for (unsigned block = 0; block < blocks; block += sharing) {
      cuda::simt::run_cluster(block, sharing, threads, shared_bytes.template operator()<cuda::Sweep::states>(),
                              [&] { cuda::states_block<K, pieces, half_precision, narrow>(states); });
      cuda::simt::run_cluster(block, sharing, threads, shared_bytes.template operator()<cuda::Sweep::adjoint>(),
                              [&] { cuda::adjoint_block<K, pieces, half_precision, narrow>(sweep); });
    }
  }

  cuda::GradientArguments last;
  last.call = args;
  last.rows_total = s.B * s.T;
  last.d_o = sweep.d_o, last.d_final_state = sweep.d_final_state;
  last.dq = part.dq, last.dk = part.dk, last.dg = part.dg, last.dbeta = part.dbeta;
  last.dq_format = part.dq_format, last.dk_format = part.dk_format, last.dg_format = part.dg_format;
  last.dbeta_format = part.dbeta_format;
  last.group_heads = group_heads, last.group_first = group_first;
  last.R = static_cast<std::uint16_t*>(at(where.R)), last.M = static_cast<std::uint16_t*>(at(where.M));
  last.S = static_cast<std::uint32_t*>(at(where.S)), last.dS = static_cast<std::uint32_t*>(at(where.dS));
  last.group_q = static_cast<float*>(at(where.group_q)), last.group_k = static_cast<float*>(at(where.group_k));
  if (args.A_log != nullptr)
    last.partial_bias = static_cast<float*>(at(where.partial_bias)), last.partial_A = static_cast<float*>(at(where.partial_A));
  last.segment_slots = where.segment_slots;
  const cuda::GradientLayout<K, pieces, half_precision> layout(args.V);
  for (unsigned block = 0; block < where.segment_slots * args.H; ++block)
    cuda::simt::run_cluster(block, 1, 2 * K, static_cast<std::size_t>(layout.bytes), [&] {
      if (narrow || args.gate == cuda::Gate::softplus || args.gate == cuda::Gate::sigmoid)
        cuda::gradients_block<cuda::GateCode::any, K, pieces, half_precision, narrow>(last);
      else if (args.gate == cuda::Gate::bounded)
        cuda::gradients_block<cuda::GateCode::bounded, K, pieces, half_precision>(last);
      else
        cuda::gradients_block<cuda::GateCode::given, K, pieces, half_precision>(last);
    });
  if (args.A_log == nullptr) return;
  const cuda::ParameterArguments sums{.partial_bias = last.partial_bias,
                                      .partial_A = last.partial_A,
                                      .d_dt_bias = part.d_dt_bias,
                                      .d_A_log = part.d_A_log,
                                      .segment_slots = where.segment_slots,
                                      .HV = args.HV,
                                      .K = args.K};
  constexpr unsigned width = K > 128 ? 1024 : (K + 1 + 31) / 32 * 32 * cuda::parameter_groups;
  for (unsigned head = 0; head < static_cast<unsigned>(args.HV); ++head)
    cuda::simt::run_cluster(head, 1, width, 8 * cuda::parameter_groups * (K + 1), [&] { cuda::parameters_block(sums, width); });
}

int rounds = 0; ///< run so far

/// All passes, block by block. `sharing` 0: the sweeps take chunks kept in memory.
template <int K, int pieces, bool half_precision, bool narrow = false> void run(const Case& test, Made& made, unsigned sharing) {
  const Shape& s = test.shape;
  cuda::ForwardArguments args;
  const auto view = [&](Input which) { return made.in[which] ? row_view(made.in[which]) : cuda::View{}; };
  args.q = view(Input::q), args.k = view(Input::k), args.v = view(Input::v), args.g = view(Input::g), args.beta = view(Input::beta);
  args.A_log = static_cast<const float*>(made.in[Input::A_log].data),
  args.dt_bias = static_cast<const float*>(made.in[Input::dt_bias].data);
  args.initial_state = static_cast<const float*>(made.in[Input::initial_state].data);
  args.cu_seqlens = test.cu_seqlens.empty() ? nullptr : test.cu_seqlens.data();
  args.N = made.in.N(), args.T = s.T, args.H = static_cast<int>(s.H), args.HV = args.state_heads = static_cast<int>(s.HV),
  args.K = static_cast<int>(s.K), args.V = static_cast<int>(s.V);
  args.gate = static_cast<cuda::Gate>(test.options.gate), args.beta_form = static_cast<cuda::Beta>(test.options.beta);
  args.gate_format = test.gate_fp32 ? cuda::Stored::fp32 : cuda::Stored::bf16;
  args.qkv_format = args.output_format = args.beta_format = half_precision ? cuda::Stored::fp16 : cuda::Stored::bf16;
  args.l2norm = test.options.l2norm, args.v_first = test.v_first, args.lower_bound = test.options.lower_bound;
  args.scale = test.options.scale;
  const int consumers = static_cast<int>(s.V) / 16 / std::max(static_cast<int>(sharing), 1);
  args.slices = static_cast<int>(sharing), args.consumer_warps = consumers, args.producer_warps = 2, args.stages = 4;
  args.sharing = static_cast<int>(sharing);
  args.staged = sharing > 2;
  const auto gradient = [&](Input which) {
    const auto found = made.gradient.find(which);
    return found == made.gradient.end() ? cuda::View{} : row_view(found->second.view);
  };
  const auto format = [&](Input which) {
    const auto found = made.gradient.find(which);
    return found == made.gradient.end() ? cuda::Stored::fp32 : stored(found->second.view.format);
  };

  cuda::BackwardArguments all;
  all.call = args, all.B = s.B;
  if (test.d_o) all.d_o = row_view(made.d_o.view);
  all.dq = gradient(Input::q), all.dk = gradient(Input::k), all.dv = gradient(Input::v), all.dg = gradient(Input::g);
  all.dbeta = gradient(Input::beta);
  all.dq_format = format(Input::q), all.dk_format = format(Input::k), all.dv_format = format(Input::v), all.dg_format = format(Input::g);
  all.dbeta_format = format(Input::beta);
  all.d_final_state = test.d_state ? static_cast<const float*>(made.d_state.view.data) : nullptr;
  const auto parameter = [&](Input which) { return static_cast<float*>(gradient(which).data); };
  all.d_initial_state = parameter(Input::initial_state), all.d_A_log = parameter(Input::A_log), all.d_dt_bias = parameter(Input::dt_bias);
  const cuda::BackwardWorkspace where = cuda::backward_workspace(args, s.B, pieces, args.cu_seqlens != nullptr);
  std::vector<unsigned char> workspace(where.bytes + 256, 0xff);
  all.workspace = workspace.data();
  const int group = args.HV / args.H;
  for (int first = 0; first < args.HV; first += where.heads, ++rounds)
    run_round<K, pieces, half_precision, narrow>(test, heads_of(all, first, std::min(where.heads, args.HV - first)), where, sharing, group,
                                                 first % group);
}

/// Exact gradients in the tensors' shapes.
std::map<Input, std::vector<double>> truth(const Case& test, const Made& made) {
  std::map<Input, std::vector<double>> exact;
  const Shape& s = test.shape;
  for (const auto& [which, tensor] : made.gradient) exact[which].assign(static_cast<std::size_t>(tensor.view.elements()), 0.0);
  for (std::int64_t n = 0; n < made.in.N(); ++n)
    for (std::int64_t head = 0; head < s.HV; ++head) {
      const auto d = cuda::adjoint_fp64(made.in, made.cotangents, n, head, test.v_first);
      const bool packed = !test.cu_seqlens.empty();
      const std::int64_t first = packed ? test.cu_seqlens[static_cast<std::size_t>(n)] : 0, b = packed ? 0 : n;
      const auto add = [&](Input which, const std::vector<double>& values, std::int64_t h, std::int64_t channels) {
        if (!exact.contains(which)) return;
        const TensorView& view = made.gradient.at(which).view;
        for (std::size_t e = 0; e < values.size(); ++e) {
          const auto t = static_cast<std::int64_t>(e) / channels, c = static_cast<std::int64_t>(e) % channels;
          exact[which][static_cast<std::size_t>(view.offset(b, first + t, h, c))] += values[e];
        }
      };
      add(Input::q, d.q, head / (s.HV / s.H), s.K), add(Input::k, d.k, head / (s.HV / s.H), s.K), add(Input::v, d.v, head, s.V);
      add(Input::g, d.g, head, s.K), add(Input::beta, d.beta, head, 1);
      if (exact.contains(Input::A_log)) {
        exact[Input::A_log][static_cast<std::size_t>(head)] += d.A_log;
        for (std::size_t c = 0; c < d.dt_bias.size(); ++c) exact[Input::dt_bias][static_cast<std::size_t>(head * s.K) + c] += d.dt_bias[c];
      }
      const TensorView& state = made.gradient.at(Input::initial_state).view;
      for (std::int64_t c = 0; c < s.K; ++c)
        for (std::int64_t j = 0; j < s.V; ++j)
          exact[Input::initial_state][static_cast<std::size_t>(test.v_first ? state.offset(n, head, j, c) : state.offset(n, head, c, j))] =
              d.initial_state[static_cast<std::size_t>(c * s.V + j)];
    }
  return exact;
}

/// Relative L2 errors; NaN where a number was not written.
template <int K, int pieces, bool half_precision = false, bool narrow = false>
std::map<Input, double> errors(const Case& test, unsigned sharing = 1) {
  Made made = make(test, half_precision ? Format::fp16 : Format::bf16);
  run<K, pieces, half_precision, narrow>(test, made, sharing);
  std::map<Input, double> result;
  for (const auto& [which, exact] : truth(test, made)) {
    double difference = 0, norm = 0;
    for (std::size_t e = 0; e < exact.size(); ++e) {
      const double d = load(made.gradient.at(which).view, static_cast<std::int64_t>(e)) - exact[e];
      difference += d * d, norm += exact[e] * exact[e];
    }
    result[which] = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  }
  return result;
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
  Made made = make(test, Format::fp32);
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
  const Case test{
      .shape = {.B = 1, .T = 80, .H = 1, .HV = 1, .K = 64, .V = 32}, .options = {.l2norm = true, .scale = 0.125f}, .d_state = false};
  for (std::int64_t place : {std::int64_t{5}, std::int64_t{37}, std::int64_t{63}}) {
    const unsigned sharing = place == 37 ? 1 : 0; // both forms of the sweep
    Made made = make(test, Format::bf16), clean = make(test, Format::bf16);
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
            .gate_center = -3,
            .gradients = Format::bf16};
  rounds = 0;
  check(errors<64, 2>(test), bf16_bound);
  CHECK(std::exchange(rounds, 0) > 1);
  test.shape.H = 1, test.shape.HV = 3; // one group: its heads are dealt out
  check(errors<64, 2>(test), bf16_bound);
  CHECK(rounds > 1);
}
