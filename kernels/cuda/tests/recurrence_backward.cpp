// The recurrence's backward pass on an emulated multiprocessor against the adjoint in double.

#include "../recurrence/recurrence_adjoint.cuh"
#include "gradients.hpp"

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

template <int parts> void run_passes(const cuda::RecurrenceAdjoint& args) {
  using namespace cuda;
  const ForwardArguments& call = args.back.call;
  const auto threads = static_cast<unsigned>(32 * args.where.warps);
  const auto shared = static_cast<std::size_t>(recurrence_shared_bytes<parts>(args.where.warps, call.dplr, call.K));
  for (unsigned block = 0; block < static_cast<unsigned>(call.N * call.HV * args.where.groups); ++block) {
    simt::run_cluster(block, 1, threads, 0, [&] { recurrence_states_block<parts>(args); });
    simt::run_cluster(block, 1, threads, shared, [&] { recurrence_adjoint_block<parts>(args); });
  }
}

void run(const Case& test, Made& made) {
  using namespace cuda;
  const Shape& s = test.shape;
  RecurrenceAdjoint adjoint;
  BackwardArguments& back = adjoint.back = backward_arguments(test, made);
  const ForwardArguments& args = back.call;
  adjoint.where = recurrence_workspace(args, s.B);
  std::vector<unsigned char> workspace(adjoint.where.bytes + 256, 0xff);
  back.workspace = workspace.data();
  adjoint.where.parts == 2 ? run_passes<2>(adjoint) : adjoint.where.parts == 4 ? run_passes<4>(adjoint) : run_passes<8>(adjoint);
  float* bias = args.A_log != nullptr ? adjoint.at(adjoint.where.partial_bias) : nullptr;
  float* A = args.A_log != nullptr ? adjoint.at(adjoint.where.partial_A) : nullptr;
  for (unsigned block = 0; block < static_cast<unsigned>(adjoint.where.slabs * s.HV); ++block)
    simt::run_cluster(block, 1, 32 * slab_warps, static_cast<std::size_t>(4 * slab_warps * (s.K + 1)),
                      [&] { recurrence_rows_block(adjoint, bias, A); });
  for (unsigned head = 0; bias != nullptr && head < static_cast<unsigned>(s.HV); ++head)
    simt::run_cluster(head, 1, 288, 0, [&] { recurrence_parameters_block(adjoint, bias, A); });
  for (std::size_t at = adjoint.where.bytes; at < workspace.size(); ++at) REQUIRE(workspace[at] == 0xff);
}

void check(const Case& test, double bound = 3e-6) {
  Made made = make(test);
  run(test, made);
  for (const auto& [which, error] : gradient_errors(test, made)) {
    INFO("d " << name(which));
    CHECK(error <= bound);
  }
}

Options options(Rule rule, GateForm gate, BetaForm beta = BetaForm::value) {
  return {.rule = rule, .gate = gate, .beta = beta, .l2norm = true, .scale = 0.3f};
}

} // namespace

TEST_CASE("the adjoint of the general rule in double agrees with differences") {
  const Case test{.shape = {.B = 1, .T = 5, .H = 1, .HV = 1, .K = 4, .V = 3}, .options = options(Rule::dplr, GateForm::bounded)};
  Made made = make(test);
  const auto exact = truth(test, made);
  const auto loss = [&] {
    const auto result = cuda::recurrence_fp64(made.in, 0, 0);
    double sum = 0;
    for (std::size_t e = 0; e < result.o.size(); ++e) sum += result.o[e] * load(made.d_o.view, static_cast<std::int64_t>(e));
    for (std::size_t e = 0; e < result.state.size(); ++e) sum += result.state[e] * load(made.d_state.view, static_cast<std::int64_t>(e));
    return sum;
  };
  for (const auto& [which, values] : exact) {
    const TensorView view = made.in[which];
    for (std::int64_t e = 0; e < view.elements(); ++e) {
      const float x = load(view, e), step = 0x1p-9f;
      store(view, e, x + step);
      const double above = load(view, e), up = loss();
      store(view, e, x - step);
      const double below = load(view, e), down = loss();
      store(view, e, x);
      INFO(name(which) << ' ' << e);
      CHECK(values[static_cast<std::size_t>(e)] == Approx((up - down) / (above - below)).epsilon(1e-3).margin(1e-3));
    }
  }
}

TEST_CASE("one token, a few, and several segments agree with the adjoint") {
  for (std::int64_t T : {1, 7, 8, 9, 64, 65, 150})
    for (Rule rule : {Rule::kda, Rule::dplr})
      check({.shape = {.B = 2, .T = T, .H = 1, .HV = 1, .K = 20, .V = 5}, .options = options(rule, GateForm::log_decay)});
}

TEST_CASE("every width of the state agrees with the adjoint") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    check({.shape = {.B = 1, .T = 21, .H = 1, .HV = 1, .K = 100, .V = 70}, .options = options(rule, GateForm::sigmoid)});
    check({.shape = {.B = 1, .T = 11, .H = 1, .HV = 1, .K = 256, .V = 8}, .options = options(rule, GateForm::absent)});
  }
}

TEST_CASE("packed members, grouped heads, parameters and V-first states agree with the adjoint") {
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (GateForm gate : {GateForm::softplus, GateForm::bounded})
      check({.shape = {.B = 1, .T = 148, .H = 2, .HV = 4, .K = 33, .V = 9},
             .options = options(rule, gate, BetaForm::twice_sigmoid),
             .cu_seqlens = {0, 0, 17, 18, 18, 148},
             .input = Format::bf16,
             .v_first = true},
            1e-5);
}

TEST_CASE("cotangents and states may be absent") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    Case test{.shape = {.B = 1, .T = 12, .H = 1, .HV = 1, .K = 16, .V = 4}, .options = options(rule, GateForm::log_decay)};
    test.initial = test.d_state = false;
    check(test);
    test.d_state = true, test.d_o = false;
    check(test);
  }
}
