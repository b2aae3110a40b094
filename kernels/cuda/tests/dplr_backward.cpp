// The general rule's backward pass on an emulated multiprocessor against the adjoint of the recurrence in double.

#include "../backward/backward_parameters.cuh"
#include "../dplr/dplr_gradients.cuh"
#include "gradients.hpp"

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

/// All passes, block by block.
template <int K, bool half_precision> void run(const Case& test, Made& made) {
  using namespace cuda;
  const Shape& s = test.shape;
  const BackwardArguments back = backward_arguments(test, made);
  const ForwardArguments& args = back.call;
  const GeneralWorkspace where = general_workspace(args, s.B, args.cu_seqlens != nullptr);
  std::vector<unsigned char> memory(where.bytes + 512, 0xff);
  unsigned char* workspace = memory.data() + (256 - reinterpret_cast<std::uintptr_t>(memory.data()) % 256) % 256;
  const auto at = [&](std::size_t offset) { return static_cast<void*>(workspace + offset); };
  const int bench = GeneralBench<K>::bytes(args.gate_format == Stored::fp32 ? 4 : 2);
  const StageArguments stages{.call = args, .data = workspace + where.stages, .slots = where.stage_slots, .warps = 3, .blocks = 2};
  for (unsigned block = 0; block < 2; ++block)
    simt::run_cluster(block, 1, 96, static_cast<std::size_t>(3 * bench), [&] { general_stages_block<K, half_precision>(stages); });
  SweepArguments sweep{.call = args,
                       .d_o = {},
                       .dv = {},
                       .dv_format = back.dv_format,
                       .rows = static_cast<std::uint16_t*>(at(where.W)),
                       .rows_total = s.B * s.T,
                       .states = static_cast<std::uint32_t*>(at(where.S))};
  KeptSweepArguments kept{.states = sweep, .adjoint = sweep, .data = stages.data, .slots = stages.slots};
  kept.adjoint.d_o = back.d_o, kept.adjoint.dv = back.dv;
  kept.adjoint.d_final_state = back.d_final_state, kept.adjoint.d_initial_state = back.d_initial_state;
  kept.adjoint.rows = static_cast<std::uint16_t*>(at(where.Y)), kept.adjoint.states = static_cast<std::uint32_t*>(at(where.dS));
  kept.warps = args.V % 32 == 0 ? 2 : 1, kept.slices = args.V / 16 / kept.warps, kept.ring = 3;
  for (unsigned block = 0; block < static_cast<unsigned>(2 * args.N * args.HV * kept.slices); ++block)
    simt::run_cluster(block, 1, static_cast<unsigned>(32 * kept.warps),
                      static_cast<std::size_t>(general_sweep_bytes<K>(kept.ring, kept.warps)),
                      [&] { general_sweeps_block<K, half_precision>(kept); });
  GeneralGradients gradient;
  GradientArguments& last = gradient.last;
  last.call = args, last.d_o = back.d_o, last.dq = back.dq, last.dk = back.dk, last.dg = back.dg;
  last.dq_format = back.dq_format, last.dk_format = back.dk_format, last.dg_format = back.dg_format;
  last.d_final_state = back.d_final_state;
  last.R = static_cast<std::uint16_t*>(at(where.W)), last.M = static_cast<std::uint16_t*>(at(where.Y)), last.rows_total = s.B * s.T;
  last.S = static_cast<std::uint32_t*>(at(where.S)), last.dS = static_cast<std::uint32_t*>(at(where.dS));
  last.group_q = static_cast<float*>(at(where.group_q)), last.group_k = static_cast<float*>(at(where.group_k));
  last.segment_slots = where.segment_slots;
  if (args.A_log != nullptr)
    last.partial_bias = static_cast<float*>(at(where.partial_bias)), last.partial_A = static_cast<float*>(at(where.partial_A));
  gradient.da = back.da, gradient.db = back.db, gradient.da_format = back.da_format, gradient.db_format = back.db_format;
  gradient.stages = stages.data, gradient.stage_slots = stages.slots;
  for (unsigned block = 0; block < static_cast<unsigned>(where.segment_slots * s.H); ++block)
    simt::run_cluster(block, 1, 2 * K, static_cast<std::size_t>(GeneralGradientLayout<K>(args.V, 2).bytes),
                      [&] { general_gradients_block<K, half_precision>(gradient); });
  for (std::size_t byte = where.bytes; byte < where.bytes + 256; ++byte) REQUIRE(workspace[byte] == 0xff);
  if (args.A_log == nullptr) return;
  const ParameterArguments sums{.partial_bias = last.partial_bias,
                                .partial_A = last.partial_A,
                                .d_dt_bias = back.d_dt_bias,
                                .d_A_log = back.d_A_log,
                                .segment_slots = where.segment_slots,
                                .HV = args.HV,
                                .K = K};
  constexpr unsigned width = (K + 1 + 31) / 32 * 32 * parameter_groups;
  for (unsigned head = 0; head < static_cast<unsigned>(s.HV); ++head)
    simt::run_cluster(head, 1, width, 8 * parameter_groups * (K + 1), [&] { parameters_block(sums, width); });
}

// A wrong index gives errors of order one, roundings of bf16 operands about 2^-8.
template <int K, bool half_precision = false> void check(Case test, double bound = 0x1p-5) {
  test.input = half_precision ? Format::fp16 : Format::bf16;
  Made made = make(test);
  run<K, half_precision>(test, made);
  for (const auto& [which, error] : gradient_errors(test, made)) {
    INFO("d " << name(which));
    CHECK(error <= bound);
  }
}

Options options(GateForm gate) { return {.rule = Rule::dplr, .gate = gate, .l2norm = true, .scale = 0.125f}; }

} // namespace

TEST_CASE("general rule, backward: one token, a chunk and a tail, several segments agree with the adjoint") {
  for (std::int64_t T : {1, 16, 21, 64, 150})
    check<64>({.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = 64, .V = 16}, .options = options(GateForm::log_decay)});
}

TEST_CASE("general rule, backward: both input formats, 128 channels and more value columns than a block holds agree with the adjoint") {
  check<128>({.shape = {.B = 2, .T = 70, .H = 1, .HV = 1, .K = 128, .V = 48}, .options = options(GateForm::bounded)});
  check<64, true>({.shape = {.B = 1, .T = 70, .H = 1, .HV = 1, .K = 64, .V = 144}, .options = options(GateForm::sigmoid)});
}

TEST_CASE("general rule, backward: packed members, grouped heads and V-first states agree with the adjoint") {
  Case test{.shape = {.B = 1, .T = 148, .H = 2, .HV = 4, .K = 64, .V = 32},
            .options = options(GateForm::softplus),
            .cu_seqlens = {0, 0, 17, 18, 18, 148},
            .v_first = true,
            .gate_center = -3};
  check<64>(test);
  test.options.l2norm = false, test.initial = test.d_state = false;
  check<64>(test);
}

TEST_CASE("general rule, backward: steep decay and none agree with the adjoint") {
  for (const auto& [center, spread] : std::vector<std::pair<float, float>>{{60, 40}, {5, 1}, {0, 6}, {0, 1000}})
    check<64>({.shape = {.B = 1, .T = 37, .H = 1, .HV = 1, .K = 64, .V = 16},
               .options = options(GateForm::log_decay),
               .gate_center = center,
               .gate_spread = spread});
  check<64>({.shape = {.B = 1, .T = 33, .H = 1, .HV = 1, .K = 64, .V = 16}, .options = options(GateForm::absent)});
}

TEST_CASE("general rule, backward: a decay that is not quite 0 is not taken for 0") {
  check<64>({.shape = {.B = 1, .T = 1, .H = 1, .HV = 1, .K = 64, .V = 16},
             .options = options(GateForm::log_decay),
             .gate_center = 89.0f, // e^-89 is 2^-128.4: fp32 holds it with 20 bits
             .gate_spread = 0});
}

TEST_CASE("general rule, backward: cotangents may be absent") {
  Case test{.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 64, .V = 16}, .options = options(GateForm::log_decay), .d_state = false};
  check<64>(test);
  test.d_state = true, test.d_o = false;
  check<64>(test);
}

TEST_CASE("general rule, backward: a cotangent that is not a number reaches no later token") {
  const Case test{.shape = {.B = 1, .T = 80, .H = 1, .HV = 1, .K = 64, .V = 32},
                  .options = options(GateForm::log_decay),
                  .input = Format::bf16,
                  .d_state = false};
  Made clean = make(test);
  run<64, false>(test, clean);
  for (std::int64_t place : {5, 37, 63}) {
    Made made = make(test);
    store(made.d_o.view, place * 32 + 3, NAN);
    run<64, false>(test, made);
    for (Input which : {Input::q, Input::k, Input::v, Input::a, Input::b, Input::g}) {
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
