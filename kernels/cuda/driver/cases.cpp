#include "cases.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <string_view>

namespace kdacheck::cuda {
namespace {

/// Keys near one direction, or near +-one direction by turns.
void fill_keys(Owned& k, const Regime& regime, std::mt19937& engine) {
  std::normal_distribution<float> normal;
  const auto K = regime.shape.K;
  std::vector<float> direction(static_cast<std::size_t>(K));
  for (float& x : direction) x = normal(engine);
  const float spread = regime.keys == Keys::gaussian || regime.keys == Keys::converged ? 1.0f : 0.02f;
  for (std::int64_t i = 0; i < k.view.elements(); ++i) {
    const std::int64_t token = i / (K * regime.shape.H);
    const float sign = regime.keys == Keys::alternating && token % 2 == 1 ? -1.0f : 1.0f;
    const float base = spread < 1 ? sign * direction[static_cast<std::size_t>(i % K)] : 0.0f;
    const float norm = regime.options.l2norm ? 1.0f : 1.0f / std::sqrt(static_cast<float>(K));
    store(k.view, i, norm * (base + spread * normal(engine)));
  }
}

/// Memory that already answers: v_t = S_{t-1}^T (alpha k), from a run of the recurrence, so that V - kd S cancels.
void converge(Case& made, const Regime& regime) {
  if (regime.keys != Keys::converged) return;
  auto v = made[Input::v].view;
  auto k = made[Input::k].view;
  const Shape& s = regime.shape;
  std::mt19937 engine(99);
  std::normal_distribution<float> normal;
  std::vector<float> map(static_cast<std::size_t>(s.K * s.V));
  for (float& x : map) x = normal(engine) / std::sqrt(static_cast<float>(s.K));
  for (std::int64_t t = 0; t < s.T; ++t)
    for (std::int64_t h = 0; h < s.HV; ++h)
      for (std::int64_t j = 0; j < s.V; ++j) {
        float sum = 0;
        for (std::int64_t c = 0; c < s.K; ++c) sum += load(k, k.offset(0, t, h, c)) * map[static_cast<std::size_t>(c * s.V + j)];
        store(v, v.offset(0, t, h, j), sum);
      }
}

} // namespace

Case make_case(const Regime& regime, const Contract& contract, unsigned seed) {
  Case made;
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform(regime.beta_least, regime.beta_most);
  const Shape& s = regime.shape;
  const std::int64_t N = regime.cu_seqlens.empty() ? s.B : static_cast<std::int64_t>(regime.cu_seqlens.size()) - 1;
  const Options& options = regime.options;
  const bool parametric = options.gate == GateForm::softplus || options.gate == GateForm::bounded, dplr = options.rule == Rule::dplr;
  const InputFormats formats = input_formats(contract);
  for (Input input : all_inputs) {
    if (input == Input::initial_state && !regime.initial_state) continue;
    if ((input == Input::a || input == Input::b) && !dplr) continue;
    if (input == Input::beta && dplr) continue;
    if ((input == Input::A_log || input == Input::dt_bias) && !parametric) continue;
    if (input == Input::g && options.gate == GateForm::absent) continue;
    auto shape = shape_of(input, s, N);
    if (input == Input::initial_state && contract.state_v_first) std::swap(shape[2], shape[3]);
    Owned& owned = made[input] = Owned(format_of(input, formats), shape);
    const float small = 1.0f / std::sqrt(static_cast<float>(s.K));
    if (input == Input::k)
      fill_keys(owned, regime, engine);
    else if (input == Input::g)
      owned.fill([&] {
        const float x = regime.gate_center + regime.gate_spread * normal(engine);
        return options.gate == GateForm::log_decay ? -std::fabs(x) : x;
      });
    else if (input == Input::beta)
      owned.fill([&] { return uniform(engine); });
    else if (input == Input::A_log)
      owned.fill([&] { return 0.3f * normal(engine); });
    else
      owned.fill([&] { return (input == Input::a || input == Input::b ? 0.5f * small : 1.0f) * normal(engine); });
    made.in[input] = owned.view;
  }
  made.in.shape = s;
  made.in.options = options;
  made.in.cu_seqlens = regime.cu_seqlens;
  made.o = Owned(contract.output, shape_of(Output::o, s, N));
  auto state_shape = shape_of(Output::final_state, s, N);
  if (contract.state_v_first) std::swap(state_shape[2], state_shape[3]);
  made.final_state = Owned(Format::fp32, state_shape);
  converge(made, regime);
  return made;
}

std::vector<Regime> regimes() {
  const Options gated{.gate = GateForm::bounded, .beta = BetaForm::sigmoid, .l2norm = true, .scale = 0.08838834764831845f};
  Options softplus = gated, sigmoid = gated, absent = gated, plain = gated, dplr = gated;
  softplus.gate = GateForm::softplus, softplus.beta = BetaForm::twice_sigmoid;
  sigmoid.gate = GateForm::sigmoid;
  absent.gate = GateForm::absent;
  plain.gate = GateForm::log_decay, plain.l2norm = false, plain.beta = BetaForm::value;
  dplr.rule = Rule::dplr, dplr.gate = GateForm::log_decay;
  Options dplr_gated = gated, dplr_softplus = softplus, dplr_plain = dplr;
  dplr_gated.rule = dplr_softplus.rule = Rule::dplr;
  dplr_plain.l2norm = false;
  Options given = plain;
  given.l2norm = true;
  return {
      {.name = "gaussian", .options = gated, .beta_least = -2, .beta_most = 2},
      {.name = "slow decay", .options = given, .gate_spread = 1e-3f},
      {.name = "near-identical", .options = given, .keys = Keys::near_identical, .gate_spread = 1e-3f, .beta_least = 0.9f},
      {.name = "alternating", .options = given, .keys = Keys::alternating, .gate_spread = 1e-3f, .beta_least = 0.9f},
      {.name = "near-identical, empty state",
       .shape = {.B = 1, .T = 900, .H = 2, .HV = 2, .K = 128, .V = 128},
       .options = given,
       .keys = Keys::near_identical,
       .gate_spread = 1e-3f,
       .beta_least = 0.9f,
       .initial_state = false},
      {.name = "alternating, empty state",
       .shape = {.B = 1, .T = 900, .H = 2, .HV = 2, .K = 128, .V = 128},
       .options = given,
       .keys = Keys::alternating,
       .gate_spread = 1e-3f,
       .beta_least = 0.9f,
       .initial_state = false},
      {.name = "decay at -5", .options = given, .gate_center = 5, .gate_spread = 0.01f},
      {.name = "decay to 0", .options = given, .gate_center = 60, .gate_spread = 40},
      {.name = "mixed decay", .options = given, .gate_center = 0, .gate_spread = 3},
      {.name = "converged", .options = given, .keys = Keys::converged, .gate_spread = 1e-4f},
      {.name = "beta to 2", .options = softplus, .gate_center = -3, .beta_least = -2, .beta_most = 4},
      {.name = "sigmoid gate", .options = sigmoid, .gate_center = 3},
      {.name = "no gate", .shape = {.B = 2, .T = 97, .H = 1, .HV = 2, .K = 64, .V = 64}, .options = absent},
      {.name = "no l2norm", .shape = {.B = 3, .T = 31, .H = 2, .HV = 4, .K = 128, .V = 48}, .options = plain, .initial_state = false},
      {.name = "packed",
       .shape = {.B = 1, .T = 214, .H = 2, .HV = 4, .K = 64, .V = 128},
       .options = softplus,
       .beta_least = -2,
       .beta_most = 2,
       .cu_seqlens = {0, 0, 1, 17, 17, 33, 150, 213, 214}},
      {.name = "V 256", .shape = {.B = 1, .T = 65, .H = 1, .HV = 1, .K = 128, .V = 256}, .options = gated},
      {.name = "many heads", .shape = {.B = 2, .T = 40, .H = 70, .HV = 140, .K = 128, .V = 128}, .options = gated},
      {.name = "T 4000", .shape = {.B = 1, .T = 4000, .H = 8, .HV = 8, .K = 128, .V = 128}, .options = gated},
      {.name = "8 tokens", .shape = {.B = 5, .T = 8, .H = 2, .HV = 4, .K = 128, .V = 128}, .options = gated},
      {.name = "1 token", .shape = {.B = 5, .T = 1, .H = 2, .HV = 2, .K = 64, .V = 36}, .options = gated, .initial_state = false},
      {.name = "3 tokens, K 80", .shape = {.B = 2, .T = 3, .H = 2, .HV = 2, .K = 80, .V = 256}, .options = softplus},
      {.name = "3 tokens, many heads", .shape = {.B = 50, .T = 3, .H = 2, .HV = 4, .K = 112, .V = 96}, .options = gated},
      {.name = "8 tokens, many heads", .shape = {.B = 50, .T = 8, .H = 2, .HV = 4, .K = 48, .V = 144}, .options = softplus},
      {.name = "odd sizes", .shape = {.B = 2, .T = 37, .H = 3, .HV = 6, .K = 37, .V = 19}, .options = given},
      {.name = "K 256", .shape = {.B = 1, .T = 50, .H = 2, .HV = 2, .K = 256, .V = 200}, .options = given},
      {.name = "grouped by 4", .shape = {.B = 2, .T = 192, .H = 3, .HV = 12, .K = 128, .V = 128}, .options = gated},
      {.name = "one key head", .shape = {.B = 1, .T = 192, .H = 1, .HV = 5, .K = 64, .V = 128}, .options = gated},
      {.name = "K 16", .shape = {.B = 2, .T = 97, .H = 2, .HV = 4, .K = 16, .V = 80}, .options = gated},
      {.name = "K 48 packed",
       .shape = {.B = 1, .T = 214, .H = 2, .HV = 4, .K = 48, .V = 128},
       .options = softplus,
       .beta_least = -2,
       .beta_most = 2,
       .cu_seqlens = {0, 0, 1, 17, 17, 33, 150, 213, 214}},
      {.name = "K 80", .shape = {.B = 1, .T = 150, .H = 2, .HV = 2, .K = 80, .V = 64}, .options = plain, .initial_state = false},
      {.name = "K 112", .shape = {.B = 1, .T = 200, .H = 2, .HV = 2, .K = 112, .V = 16}, .options = sigmoid, .gate_center = 3},
      {.name = "K 144", .shape = {.B = 1, .T = 130, .H = 1, .HV = 2, .K = 144, .V = 96}, .options = gated},
      {.name = "K 192 packed",
       .shape = {.B = 1, .T = 214, .H = 2, .HV = 4, .K = 192, .V = 112},
       .options = softplus,
       .beta_least = -2,
       .beta_most = 2,
       .cu_seqlens = {0, 0, 1, 17, 17, 33, 150, 213, 214}},
      {.name = "K 256, V 256", .shape = {.B = 1, .T = 150, .H = 2, .HV = 2, .K = 256, .V = 256}, .options = given, .gate_spread = 0.1f},
      {.name = "K 256, V 208", .shape = {.B = 1, .T = 70, .H = 1, .HV = 2, .K = 256, .V = 208}, .options = absent},
      {.name = "K 240, 90 heads", .shape = {.B = 2, .T = 40, .H = 90, .HV = 90, .K = 240, .V = 128}, .options = gated},
      {.name = "DPLR", .shape = {.B = 1, .T = 200, .H = 2, .HV = 4, .K = 64, .V = 64}, .options = dplr, .gate_spread = 0.1f},
      {.name = "DPLR gate inside", .options = dplr_gated, .gate_center = -2},
      {.name = "DPLR slow decay", .options = dplr, .gate_spread = 1e-3f},
      {.name = "DPLR steep", .options = dplr, .gate_center = 60, .gate_spread = 40},
      {.name = "DPLR half steep", .options = dplr, .gate_center = 0, .gate_spread = 5},
      {.name = "DPLR to 0", .shape = {.B = 1, .T = 97, .H = 2, .HV = 2, .K = 64, .V = 128}, .options = dplr, .gate_spread = 1000},
      {.name = "DPLR packed",
       .shape = {.B = 1, .T = 214, .H = 2, .HV = 4, .K = 64, .V = 128},
       .options = dplr_softplus,
       .cu_seqlens = {0, 0, 1, 17, 17, 33, 150, 213, 214}},
      {.name = "DPLR V 48",
       .shape = {.B = 3, .T = 31, .H = 2, .HV = 4, .K = 128, .V = 48},
       .options = dplr_plain,
       .gate_spread = 0.1f,
       .initial_state = false},
      {.name = "DPLR, keys as given", .options = dplr_plain, .gate_spread = 0.1f},
      {.name = "DPLR V 256", .shape = {.B = 1, .T = 65, .H = 1, .HV = 1, .K = 128, .V = 256}, .options = dplr_gated},
      {.name = "DPLR many heads", .shape = {.B = 2, .T = 40, .H = 70, .HV = 140, .K = 128, .V = 128}, .options = dplr_gated},
      {.name = "DPLR T 4000", .shape = {.B = 1, .T = 4000, .H = 8, .HV = 8, .K = 128, .V = 128}, .options = dplr_gated},
      {.name = "DPLR 96 heads",
       .shape = {.B = 1, .T = 250, .H = 96, .HV = 96, .K = 128, .V = 128},
       .options = dplr_gated,
       .gate_center = -2},
      {.name = "DPLR 1 token", .shape = {.B = 5, .T = 1, .H = 2, .HV = 2, .K = 64, .V = 64}, .options = dplr},
  };
}

unsigned case_seed(const Regime& regime) {
  unsigned seed = 1;
  for (const Regime& other : regimes()) {
    ++seed;
    if (std::string_view(other.name) == regime.name) break;
  }
  return seed;
}

unsigned cotangent_seed(const Regime& regime) { return 1000 + case_seed(regime); }

bool accepts(const Contract& c, const Regime& regime) {
  const auto has = [](const auto& list, auto value) { return std::find(list.begin(), list.end(), value) != list.end(); };
  return has(c.rules, regime.options.rule) && c.K.contains(regime.shape.K) && c.V.contains(regime.shape.V) &&
         c.T.contains(regime.shape.T) && (c.packed || regime.cu_seqlens.empty());
}

} // namespace kdacheck::cuda
