#include "recurrence_fp64.hpp"

#include <cmath>

namespace kdacheck::cuda {
namespace {

double softplus(double x) { return std::fmax(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double decay(const Options& options, double x, double bias, double growth) {
  switch (options.gate) {
  case GateForm::log_decay: return std::exp(x);
  case GateForm::softplus: return std::exp(-growth * softplus(x + bias));
  case GateForm::bounded: return std::exp(options.lower_bound * sigmoid(growth * (x + bias)));
  case GateForm::sigmoid: return sigmoid(x);
  default: return 1;
  }
}

double step_size(BetaForm form, double x) {
  if (form == BetaForm::value) return x;
  return sigmoid(x) * (form == BetaForm::twice_sigmoid ? 2 : 1);
}

std::vector<double> row(const TensorView& view, std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t channels) {
  std::vector<double> values(static_cast<std::size_t>(channels));
  for (std::int64_t c = 0; c < channels; ++c) values[static_cast<std::size_t>(c)] = load(view, view.offset(b, t, h, c));
  return values;
}

void normalise(std::vector<double>& x) {
  double square = 1e-6;
  for (double value : x) square += value * value;
  for (double& value : x) value /= std::sqrt(square);
}

} // namespace

HeadResult recurrence_fp64(const Inputs& in, std::int64_t n, std::int64_t head, bool v_first) {
  const auto K = static_cast<std::size_t>(in.shape.K), V = static_cast<std::size_t>(in.shape.V);
  const bool packed = !in.cu_seqlens.empty(), dplr = in.options.rule == Rule::dplr;
  const std::int64_t first = packed ? in.cu_seqlens[static_cast<std::size_t>(n)] : 0, b = packed ? 0 : n;
  const std::int64_t length = packed ? in.cu_seqlens[static_cast<std::size_t>(n) + 1] - first : in.shape.T;
  const std::int64_t head_q = head / (in.shape.HV / in.shape.H);
  HeadResult result{std::vector<double>(static_cast<std::size_t>(length) * V), std::vector<double>(K * V)};
  auto& S = result.state;
  if (const TensorView& h0 = in[Input::initial_state])
    for (std::size_t c = 0; c < K; ++c)
      for (std::size_t j = 0; j < V; ++j)
        S[c * V + j] = load(h0, h0.offset(n, head, static_cast<std::int64_t>(v_first ? j : c), static_cast<std::int64_t>(v_first ? c : j)));
  const double growth = in[Input::A_log] ? std::exp(static_cast<double>(load(in[Input::A_log], in[Input::A_log].offset(head)))) : 1;
  std::vector<double> alpha(K, 1.0), u(V);
  for (std::int64_t t = 0; t < length; ++t) {
    auto q = row(in[Input::q], b, first + t, head_q, in.shape.K), k = row(in[Input::k], b, first + t, head_q, in.shape.K);
    const auto v = row(in[Input::v], b, first + t, head, in.shape.V);
    if (in.options.l2norm) {
      normalise(q);
      normalise(k);
    }
    if (in.options.gate != GateForm::absent) {
      const auto g = row(in[Input::g], b, first + t, head, in.shape.K);
      for (std::size_t c = 0; c < K; ++c) {
        const TensorView& bias = in[Input::dt_bias];
        alpha[c] = decay(in.options, g[c], bias ? load(bias, bias.offset(head, static_cast<std::int64_t>(c))) : 0.0, growth);
      }
    }
    std::vector<double> erase = k, write = k; // S = alpha S - write (erase^T alpha S) ..., or the general rank-one term
    double beta = 1;
    if (dplr) {
      erase = row(in[Input::b], b, first + t, head, in.shape.K);
      write = row(in[Input::a], b, first + t, head, in.shape.K);
    } else {
      beta = step_size(in.options.beta, load(in[Input::beta], in[Input::beta].offset(b, first + t, head)));
    }
    for (std::size_t j = 0; j < V; ++j) {
      double read = 0;
      for (std::size_t c = 0; c < K; ++c) read += erase[c] * S[c * V + j] * (dplr ? 1 : alpha[c]);
      u[j] = read;
    }
    for (std::size_t c = 0; c < K; ++c)
      for (std::size_t j = 0; j < V; ++j) {
        const double added = dplr ? k[c] * v[j] - write[c] * u[j] : beta * k[c] * (v[j] - u[j]);
        S[c * V + j] = alpha[c] * S[c * V + j] + added;
        result.o[static_cast<std::size_t>(t) * V + j] += static_cast<double>(in.options.scale) * q[c] * S[c * V + j];
      }
  }
  return result;
}

} // namespace kdacheck::cuda
