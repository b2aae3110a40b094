#include "gate_slopes.hpp"

#include <cmath>

namespace kdacheck::faults {
namespace {

double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

/// 1 - sigmoid(x), from a sigmoid in bf16 if that is the fault.
double rest_of_sigmoid(double x, bool coarse) {
  if (!coarse) return sigmoid(-x);
  return static_cast<double>(1 - round_bf16(static_cast<float>(sigmoid(x))));
}

/// sigmoid(x) and its derivative as one is tempted to write them: infinity over infinity for large x.
float naive_sigmoid(double x) {
  const float e = round_fp16(std::exp(static_cast<float>(x)));
  return e / (1 + e);
}
float naive_sigmoid_slope(double x) {
  const float e = round_fp16(std::exp(static_cast<float>(x)));
  return e / ((1 + e) * (1 + e));
}

GateSlopes softplus_slopes(double y, double A_log, Fault fault) {
  const double rate = std::exp(A_log);
  if (fault == Fault::slope_overflows) return {-rate * static_cast<double>(naive_sigmoid(y)), -rate * softplus(y)};
  if (fault == Fault::rate_vanishes) return {-rate * sigmoid(y), -rate * softplus(y) * rate / rate};
  return {-rate * sigmoid(y), -rate * softplus(y)};
}

GateSlopes bounded_slopes(double lower_bound, double y, double A_log, Fault fault) {
  const double rate = std::exp(A_log), z = rate * y;
  const double bound = fault == Fault::lower_bound_missing_backward ? -1 : lower_bound;
  const double slope = bound * (fault == Fault::slope_overflows ? static_cast<double>(naive_sigmoid_slope(z))
                                                                : sigmoid(z) * rest_of_sigmoid(z, fault == Fault::gate_slope_bf16));
  if (fault == Fault::rate_vanishes) return {slope * rate, slope * z * rate / rate};
  return {slope * rate, slope * z};
}

} // namespace

GateSlopes gate_slopes(const Options& options, double x, double A_log, double bias, Fault fault) {
  const double y = fault == Fault::bias_missing_backward ? x : x + bias;
  GateSlopes slopes;
  switch (options.gate) {
  case GateForm::softplus: slopes = softplus_slopes(y, A_log, fault); break;
  case GateForm::bounded: slopes = bounded_slopes(static_cast<double>(options.lower_bound), y, A_log, fault); break;
  case GateForm::sigmoid: slopes = {rest_of_sigmoid(x, fault == Fault::gate_slope_bf16), 0}; break;
  default: break;
  }
  if (fault == Fault::gate_slope_missing) slopes.input = 1;
  if (fault == Fault::dA_log_without_rate) slopes.rate /= std::exp(A_log);
  return slopes;
}

float strength_slope(BetaForm form, float x, Fault fault) {
  if (form == BetaForm::value || fault == Fault::sigmoid_slope_missing) return 1;
  const bool twice = form == BetaForm::twice_sigmoid && fault != Fault::twice_sigmoid_as_sigmoid_backward;
  const double slope = sigmoid(static_cast<double>(x)) * rest_of_sigmoid(static_cast<double>(x), fault == Fault::beta_slope_bf16);
  return static_cast<float>(twice ? 2 * slope : slope);
}

void through_norm(const float* x, float* d, std::int64_t K, bool query, Fault fault) {
  if (query && fault == Fault::query_norm_missing) return;
  float squares = 0;
  for (std::int64_t c = 0; c < K; ++c) squares += x[c] * x[c];
  const float norm = std::sqrt(squares + (fault == Fault::eps_missing_backward ? 0.0f : 1e-6f));
  float along = 0;
  for (std::int64_t c = 0; c < K; ++c) along += x[c] / norm * d[c];
  if (fault == Fault::norm_without_projection) along = 0;
  for (std::int64_t c = 0; c < K; ++c) {
    const float direction = fault == Fault::norm_projects_raw ? x[c] : x[c] / norm;
    const float across = d[c] - direction * along;
    d[c] = fault == Fault::norm_factor_missing ? across : across / norm;
  }
}

} // namespace kdacheck::faults
