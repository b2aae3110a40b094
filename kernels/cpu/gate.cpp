#include "gate.hpp"

#include "lanes.hpp"
#include "rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdacheck::cpu {
namespace {

// fp64 inside: gates are a small part of the work, and this leaves one fp32 rounding in the log decay.

double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

/// s (1 - s) without cancellation.
double sigmoid_slope(double x) {
  const double e = std::exp(-std::fabs(x));
  return e / ((1 + e) * (1 + e));
}

/// e^{A_log}, finite also for a huge A_log, so that 0 times it is 0.
double rate(float A_log) { return std::exp(A_log > 600.0f ? 600.0 : static_cast<double>(A_log)); }

/// fp32, with the largest number where the slope of a gate with a huge rate goes beyond it.
float finite(double x) {
  constexpr double most = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(x, -most, most));
}

struct HeadGate {
  GateForm form;
  double rate = 1, lower_bound = 0;
  const TensorView* dt_bias = nullptr;
  std::int64_t head = 0;

  double bias(std::int64_t c) const { return dt_bias && *dt_bias ? load(*dt_bias, dt_bias->offset(head, c)) : 0.0; }
};

HeadGate gate_of(const Inputs& inputs, std::int64_t head) {
  HeadGate gate{.form = inputs.options.gate, .lower_bound = inputs.options.lower_bound, .head = head};
  if (gate.form == GateForm::softplus || gate.form == GateForm::bounded) {
    gate.rate = rate(load(inputs[Input::A_log], inputs[Input::A_log].offset(head)));
    gate.dt_bias = &inputs[Input::dt_bias];
  }
  return gate;
}

double log_decay(const HeadGate& gate, double x, double bias) {
  switch (gate.form) {
  case GateForm::softplus: return -gate.rate * softplus(x + bias);
  case GateForm::bounded: return gate.lower_bound * sigmoid(gate.rate * (x + bias));
  case GateForm::sigmoid: return -softplus(-x);
  default: return x;
  }
}

} // namespace

void read_log_decays(const Inputs& inputs, std::int64_t row, std::int64_t head, std::int64_t count, float* to) {
  const std::int64_t K = inputs.shape.K, stride = padded(K);
  if (inputs.options.gate == GateForm::absent) {
    std::fill(to, to + count * stride, 0.0f);
    return;
  }
  read_rows(inputs[Input::g], inputs.shape, row, head, count, to);
  const HeadGate gate = gate_of(inputs, head);
  if (gate.form != GateForm::log_decay)
    for (std::int64_t c = 0; c < K; ++c) {
      const double bias = gate.bias(c);
      for (std::int64_t i = 0; i < count; ++i) to[i * stride + c] = static_cast<float>(log_decay(gate, to[i * stride + c], bias));
    }
  for (std::int64_t i = 0; i < count * stride; ++i) to[i] = to[i] < least_log_decay ? least_log_decay : to[i];
}

void log_decays_backward(const Inputs& inputs, std::int64_t row, std::int64_t head, std::int64_t count, float* d, float* scratch_row,
                         const GateParameterSums& sums) {
  const std::int64_t K = inputs.shape.K, stride = padded(K);
  if (inputs.options.gate == GateForm::absent) return;
  const HeadGate gate = gate_of(inputs, head);
  for (std::int64_t i = 0; i < count; ++i, d += stride) {
    read_rows(inputs[Input::g], inputs.shape, row + i, head, 1, scratch_row);
    for (std::int64_t c = 0; c < K; ++c) {
      const double bias = gate.bias(c), x = scratch_row[c], g = log_decay(gate, x, bias);
      const double arriving = static_cast<float>(g) <= least_log_decay ? 0.0 : d[c];
      double slope = 1, along_rate = 0; // d g / d x, and d g / d A_log
      switch (gate.form) {
      case GateForm::softplus:
        slope = -gate.rate * sigmoid(x + bias);
        along_rate = g;
        break;
      case GateForm::bounded: {
        const double z = gate.rate * (x + bias), bend = gate.lower_bound * sigmoid_slope(z);
        slope = bend * gate.rate;
        along_rate = bend * z;
        break;
      }
      case GateForm::sigmoid: slope = sigmoid(-x); break;
      default: break;
      }
      const double leaving = arriving * slope;
      d[c] = finite(leaving);
      if (gate.dt_bias) {
        *sums.A_log += arriving * along_rate;
        sums.dt_bias[c] += leaving;
      }
    }
  }
}

float beta_of(BetaForm form, float x) {
  switch (form) {
  case BetaForm::sigmoid: return static_cast<float>(sigmoid(x));
  case BetaForm::twice_sigmoid: return static_cast<float>(2 * sigmoid(x));
  default: return x;
  }
}

float beta_slope(BetaForm form, float x) {
  switch (form) {
  case BetaForm::sigmoid: return static_cast<float>(sigmoid_slope(x));
  case BetaForm::twice_sigmoid: return static_cast<float>(2 * sigmoid_slope(x));
  default: return 1;
  }
}

void read_betas(const Inputs& inputs, std::int64_t row, std::int64_t head, std::int64_t count, float* to, float* raw) {
  const TensorView& view = inputs[Input::beta];
  for (std::int64_t i = 0; i < count; ++i) {
    const float x = load(view, row_offset(view, inputs.shape, row + i, head));
    to[i] = beta_of(inputs.options.beta, x);
    if (raw) raw[i] = x;
  }
}

} // namespace kdacheck::cpu
