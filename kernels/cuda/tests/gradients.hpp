#pragma once
// Cases of emulated backward passes, and their exact gradients.

#include "owned.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <random>

namespace kdacheck::cuda::testing {

struct Case {
  Shape shape;
  Options options;
  std::vector<std::int64_t> cu_seqlens = {};
  Format input = Format::fp32, gradients = Format::fp32;
  bool gate_fp32 = false, initial = true, v_first = false, d_o = true, d_state = true; ///< gate_fp32: g is fp32 whatever `input` is
  float gate_center = 0, gate_spread = 0.3f; ///< of g as stored; for log_decay its negated absolute value
};

inline constexpr std::array gradients{Input::q, Input::k,    Input::v,     Input::a,       Input::b,
                                      Input::g, Input::beta, Input::A_log, Input::dt_bias, Input::initial_state};

struct Made {
  std::map<Input, Owned> input, gradient;
  Owned d_o, d_state;
  Inputs in;
  Cotangents cotangents;
};

inline Made make(const Case& test) {
  const Shape& s = test.shape;
  const Options& options = test.options;
  const std::int64_t N = test.cu_seqlens.empty() ? s.B : static_cast<std::int64_t>(test.cu_seqlens.size()) - 1;
  const auto state_shape = test.v_first ? std::array{N, s.HV, s.V, s.K} : shape_of(Input::initial_state, s, N);
  Made made{{}, {}, Owned(test.input, shape_of(Output::o, s, N)), Owned(Format::fp32, state_shape), {}, {}};
  made.in = {.shape = s, .options = options, .tensor = {}, .cu_seqlens = test.cu_seqlens};
  std::mt19937 engine(5);
  std::normal_distribution<float> normal;
  const auto gauss = [&] { return normal(engine); };
  const bool parametric = options.gate == GateForm::bounded || options.gate == GateForm::softplus, dplr = options.rule == Rule::dplr;
  const float small = 1 / std::sqrt(static_cast<float>(s.K));
  for (Input which : gradients) {
    if (which == Input::g && options.gate == GateForm::absent) continue;
    if ((which == Input::A_log || which == Input::dt_bias) && !parametric) continue;
    if (dplr ? which == Input::beta : which == Input::a || which == Input::b) continue;
    const bool fp32 = which == Input::initial_state || which == Input::A_log || which == Input::dt_bias;
    const auto shape = which == Input::initial_state ? state_shape : shape_of(which, s, N);
    const Format format = fp32 || (which == Input::g && test.gate_fp32) ? Format::fp32 : test.input;
    Owned& tensor = made.input.emplace(which, Owned(format, shape)).first->second;
    const float size = which == Input::a || which == Input::b || (which == Input::k && !options.l2norm) ? small : 1.0f;
    if (which == Input::g)
      tensor.fill([&] {
        const float x = test.gate_center + test.gate_spread * gauss();
        return options.gate == GateForm::log_decay ? -std::fabs(x) : x;
      });
    else
      tensor.fill([&] { return (which == Input::A_log ? 0.3f : size) * gauss(); });
    made.gradient.emplace(which, Owned(fp32 ? Format::fp32 : test.gradients, shape));
    if (which != Input::initial_state || test.initial) made.in[which] = tensor.view;
  }
  made.d_o.fill(gauss);
  made.d_state.fill(gauss);
  if (test.d_o) made.cotangents.d_o = made.d_o.view;
  if (test.d_state) made.cotangents.d_final_state = made.d_state.view;
  return made;
}

/// Arguments of a case's backward pass, without workspace.
inline BackwardArguments backward_arguments(const Case& test, Made& made) {
  const Shape& s = test.shape;
  BackwardArguments back;
  ForwardArguments& args = back.call;
  const auto view = [&](Input which) { return made.in[which] ? row_view(made.in[which]) : View{}; };
  const auto numbers = [&](Input which) { return static_cast<const float*>(made.in[which].data); };
  args.q = view(Input::q), args.k = view(Input::k), args.v = view(Input::v), args.g = view(Input::g), args.beta = view(Input::beta);
  args.a = view(Input::a), args.b = view(Input::b);
  args.A_log = numbers(Input::A_log), args.dt_bias = numbers(Input::dt_bias), args.initial_state = numbers(Input::initial_state);
  args.cu_seqlens = test.cu_seqlens.empty() ? nullptr : test.cu_seqlens.data();
  args.N = made.in.N(), args.T = s.T, args.H = static_cast<int>(s.H), args.HV = args.state_heads = static_cast<int>(s.HV);
  args.K = static_cast<int>(s.K), args.V = static_cast<int>(s.V);
  args.gate = static_cast<Gate>(test.options.gate), args.beta_form = static_cast<Beta>(test.options.beta);
  args.qkv_format = args.beta_format = args.output_format = stored(test.input);
  args.gate_format = test.gate_fp32 ? Stored::fp32 : stored(test.input);
  args.dplr = test.options.rule == Rule::dplr, args.l2norm = test.options.l2norm, args.v_first = test.v_first;
  args.lower_bound = test.options.lower_bound, args.scale = test.options.scale;
  back.B = s.B;
  const auto gradient = [&](Input which, View& to, Stored& format) {
    if (const auto found = made.gradient.find(which); found != made.gradient.end())
      to = row_view(found->second.view), format = stored(found->second.view.format);
  };
  gradient(Input::q, back.dq, back.dq_format), gradient(Input::k, back.dk, back.dk_format), gradient(Input::v, back.dv, back.dv_format);
  gradient(Input::g, back.dg, back.dg_format), gradient(Input::beta, back.dbeta, back.dbeta_format);
  gradient(Input::a, back.da, back.da_format), gradient(Input::b, back.db, back.db_format);
  if (test.d_o) back.d_o = row_view(made.d_o.view);
  if (test.d_state) back.d_final_state = static_cast<const float*>(made.d_state.view.data);
  const auto parameter = [&](Input which) {
    const auto found = made.gradient.find(which);
    return found == made.gradient.end() ? nullptr : static_cast<float*>(found->second.view.data);
  };
  back.d_initial_state = parameter(Input::initial_state), back.d_A_log = parameter(Input::A_log),
  back.d_dt_bias = parameter(Input::dt_bias);
  return back;
}

/// Exact gradients in the tensors' shapes.
inline std::map<Input, std::vector<double>> truth(const Case& test, const Made& made) {
  std::map<Input, std::vector<double>> exact;
  const Shape& s = test.shape;
  for (const auto& [which, tensor] : made.gradient) exact[which].assign(static_cast<std::size_t>(tensor.view.elements()), 0.0);
  for (std::int64_t n = 0; n < made.in.N(); ++n)
    for (std::int64_t head = 0; head < s.HV; ++head) {
      const auto d = adjoint_fp64(made.in, made.cotangents, n, head, test.v_first);
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
      add(Input::g, d.g, head, s.K), add(Input::beta, d.beta, head, 1), add(Input::a, d.a, head, s.K), add(Input::b, d.b, head, s.K);
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

/// Relative L2 errors of a made case; NaN where a number was not written.
inline std::map<Input, double> gradient_errors(const Case& test, const Made& made) {
  std::map<Input, double> errors;
  for (const auto& [which, exact] : truth(test, made)) {
    double difference = 0, norm = 0;
    for (std::size_t e = 0; e < exact.size(); ++e) {
      const double d = load(made.gradient.at(which).view, static_cast<std::int64_t>(e)) - exact[e];
      difference += d * d, norm += exact[e] * exact[e];
    }
    errors[which] = relative_error(difference, norm);
  }
  return errors;
}

} // namespace kdacheck::cuda::testing
