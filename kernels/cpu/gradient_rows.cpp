#include "gradient_rows.hpp"

#include "lanes.hpp"
#include "rows.hpp"

#include <algorithm>

namespace kdacheck::cpu {
namespace {

/// The nearest finite number of a format: a gate with a huge rate has slopes beyond it. NaN stays NaN.
float within(Format format, double x) {
  const double most = std::min(largest(format), largest(Format::fp32));
  return static_cast<float>(std::clamp(x, -most, most));
}

} // namespace

ParameterPartials take_parameter_partials(Arena& arena, const Inputs& inputs) {
  const std::int64_t heads = inputs.N() * inputs.shape.HV;
  return {.A_log = arena.take<double>(heads), .dt_bias = arena.take<double>(heads * padded(inputs.shape.K))};
}

GateParameterSums clear_sums(const ParameterPartials& partials, const Inputs& inputs, std::int64_t n, std::int64_t head) {
  const std::int64_t at = n * inputs.shape.HV + head, K = padded(inputs.shape.K);
  partials.A_log[at] = 0;
  std::fill(partials.dt_bias + at * K, partials.dt_bias + (at + 1) * K, 0.0);
  return {.A_log = partials.A_log + at, .dt_bias = partials.dt_bias + at * K};
}

void write_parameters(const ParameterPartials& partials, const Inputs& inputs, const GradientOutputs& gradients) {
  const Shape& s = inputs.shape;
  const auto sum = [&](const TensorView& view, const double* from, std::int64_t stride) {
    double total = 0;
    for (std::int64_t n = 0; n < inputs.N(); ++n) total += from[n * stride];
    return within(view.format, total);
  };
  for (std::int64_t head = 0; head < s.HV; ++head) {
    if (const TensorView& view = gradients[Input::A_log]) kdacheck::store(view, view.offset(head), sum(view, partials.A_log + head, s.HV));
    if (const TensorView& view = gradients[Input::dt_bias])
      for (std::int64_t c = 0; c < s.K; ++c)
        kdacheck::store(view, view.offset(head, c), sum(view, partials.dt_bias + head * padded(s.K) + c, s.HV * padded(s.K)));
  }
}

SharedGradients take_shared_gradients(Arena& arena, const Inputs& inputs, std::int64_t longest) {
  return {.q = arena.floats(longest * padded(inputs.shape.K)), .k = arena.floats(longest * padded(inputs.shape.K))};
}

void write_shared(const SharedGradients& shared, const Inputs& inputs, const GradientOutputs& gradients, std::int64_t first_row,
                  std::int64_t shared_head, std::int64_t length, float* row) {
  const Shape& s = inputs.shape;
  for (Input input : {Input::q, Input::k}) {
    if (!gradients[input]) continue;
    float* d = input == Input::q ? shared.q : shared.k;
    for (std::int64_t t = 0; t < length; ++t, d += padded(s.K)) {
      if (inputs.options.l2norm) {
        double inverse = 1;
        read_rows(inputs[input], s, first_row + t, shared_head, 1, row);
        normalise_rows(row, 1, s.K, &inverse);
        normalise_rows_backward(row, &inverse, 1, s.K, d);
      }
      write_rows(gradients[input], s, first_row + t, shared_head, 1, d);
    }
  }
}

void write_gate_gradient(const Inputs& inputs, const GradientOutputs& gradients, std::int64_t first_row, std::int64_t head, std::int64_t n,
                         float* d, float* row, const GateParameterSums& sums) {
  if (inputs.options.gate == GateForm::absent) return;
  log_decays_backward(inputs, first_row, head, n, d, row, sums);
  const Format format = gradients[Input::g].format;
  for (std::int64_t at = 0; at < n * padded(inputs.shape.K); ++at) d[at] = within(format, d[at]);
  write_gradient(gradients, Input::g, inputs, first_row, head, n, d);
}

void write_beta_gradient(const Inputs& inputs, const GradientOutputs& gradients, std::int64_t first_row, std::int64_t head, std::int64_t n,
                         const float* d, const float* raw) {
  const TensorView& view = gradients[Input::beta];
  if (!view) return;
  for (std::int64_t i = 0; i < n; ++i)
    kdacheck::store(view, row_offset(view, inputs.shape, first_row + i, head), d[i] * beta_slope(inputs.options.beta, raw[i]));
}

void write_gradient(const GradientOutputs& gradients, Input input, const Inputs& inputs, std::int64_t first_row, std::int64_t head,
                    std::int64_t n, const float* rows) {
  if (gradients[input]) write_rows(gradients[input], inputs.shape, first_row, head, n, rows);
}

void read_output_cotangent(const Cotangents& cotangents, const Inputs& inputs, std::int64_t first_row, std::int64_t head, std::int64_t n,
                           float* to) {
  if (cotangents.d_o)
    read_rows(cotangents.d_o, inputs.shape, first_row, head, n, to);
  else
    std::fill(to, to + n * padded(inputs.shape.V), 0.0f);
}

} // namespace kdacheck::cpu
