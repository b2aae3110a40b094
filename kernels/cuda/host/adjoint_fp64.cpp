#include "recurrence_fp64.hpp"

#include <cmath>

namespace kdacheck::cuda {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::fmax(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

/// A log decay and its derivatives by x and by A_log.
struct Decay {
  double log = 0, by_x = 0, by_A_log = 0;
};

Decay decay_of(const Options& options, double x, double bias, double growth) {
  switch (options.gate) {
  case GateForm::log_decay: return {x, 1, 0};
  case GateForm::softplus: return {-growth * softplus(x + bias), -growth * sigmoid(x + bias), -growth * softplus(x + bias)};
  case GateForm::bounded: {
    const double z = growth * (x + bias), slope = options.lower_bound * sigmoid(z) * sigmoid(-z);
    return {options.lower_bound * sigmoid(z), slope * growth, slope * z};
  }
  case GateForm::sigmoid: return {-softplus(-x), sigmoid(-x), 0};
  default: return {};
  }
}

/// What one token's step took.
struct Step {
  std::vector<double> q, k, a, b, v, alpha, by_x, by_A_log, state; ///< q, k normalised; state before the step [K,V]
  double norm_q = 1, norm_k = 1, beta = 0, beta_slope = 1;
  std::vector<double> residual; ///< v - k^T Diag(alpha) S; DPLR: -b^T S
};

struct Reader {
  const Inputs& in;
  std::int64_t b, first, head, head_q;

  std::vector<double> row(Input which, std::int64_t t, std::int64_t h, std::int64_t channels) const {
    const TensorView& view = in[which];
    std::vector<double> values(static_cast<std::size_t>(channels));
    for (std::int64_t c = 0; c < channels; ++c) values[static_cast<std::size_t>(c)] = load(view, view.offset(b, first + t, h, c));
    return values;
  }
};

double normalise(std::vector<double>& x) {
  double square = 1e-6;
  for (double value : x) square += value * value;
  const double factor = 1 / std::sqrt(square);
  for (double& value : x) value *= factor;
  return factor;
}

/// Through x / sqrt(sum x^2 + 1e-6), in place.
void normalise_back(const std::vector<double>& unit, double factor, double* d) {
  double product = 0;
  for (std::size_t c = 0; c < unit.size(); ++c) product += unit[c] * d[c];
  for (std::size_t c = 0; c < unit.size(); ++c) d[c] = factor * (d[c] - unit[c] * product);
}

Step make_step(const Reader& reader, std::int64_t t, const std::vector<double>& S) {
  const Inputs& in = reader.in;
  const auto K = static_cast<std::size_t>(in.shape.K), V = static_cast<std::size_t>(in.shape.V);
  Step step;
  step.state = S;
  step.q = reader.row(Input::q, t, reader.head_q, in.shape.K);
  step.k = reader.row(Input::k, t, reader.head_q, in.shape.K);
  if (in.options.l2norm) {
    step.norm_q = normalise(step.q);
    step.norm_k = normalise(step.k);
  }
  step.alpha.assign(K, 1.0), step.by_x.assign(K, 0.0), step.by_A_log.assign(K, 0.0);
  if (in.options.gate != GateForm::absent) {
    const auto g = reader.row(Input::g, t, reader.head, in.shape.K);
    const TensorView &bias = in[Input::dt_bias], &A_log = in[Input::A_log];
    const double growth = A_log ? std::exp(static_cast<double>(load(A_log, A_log.offset(reader.head)))) : 1;
    for (std::size_t c = 0; c < K; ++c) {
      const Decay decay =
          decay_of(in.options, g[c], bias ? load(bias, bias.offset(reader.head, static_cast<std::int64_t>(c))) : 0.0, growth);
      step.alpha[c] = std::exp(decay.log), step.by_x[c] = decay.by_x, step.by_A_log[c] = decay.by_A_log;
    }
  }
  step.v = reader.row(Input::v, t, reader.head, in.shape.V);
  if (in.options.rule == Rule::dplr) {
    step.a = reader.row(Input::a, t, reader.head, in.shape.K), step.b = reader.row(Input::b, t, reader.head, in.shape.K);
    step.residual.assign(V, 0.0);
    for (std::size_t c = 0; c < K; ++c)
      for (std::size_t j = 0; j < V; ++j) step.residual[j] -= step.b[c] * S[c * V + j];
    return step;
  }
  const double x = load(in[Input::beta], in[Input::beta].offset(reader.b, reader.first + t, reader.head));
  const double times = in.options.beta == BetaForm::twice_sigmoid ? 2 : 1;
  step.beta = in.options.beta == BetaForm::value ? x : times * sigmoid(x);
  step.beta_slope = in.options.beta == BetaForm::value ? 1 : times * sigmoid(x) * sigmoid(-x);
  step.residual = step.v;
  for (std::size_t c = 0; c < K; ++c)
    for (std::size_t j = 0; j < V; ++j) step.residual[j] -= step.k[c] * step.alpha[c] * S[c * V + j];
  return step;
}

} // namespace

HeadGradients adjoint_fp64(const Inputs& in, const Cotangents& cotangents, std::int64_t n, std::int64_t head, bool v_first) {
  const auto K = static_cast<std::size_t>(in.shape.K), V = static_cast<std::size_t>(in.shape.V);
  const bool packed = !in.cu_seqlens.empty(), dplr = in.options.rule == Rule::dplr;
  const std::int64_t first = packed ? in.cu_seqlens[static_cast<std::size_t>(n)] : 0, b = packed ? 0 : n;
  const std::int64_t length = packed ? in.cu_seqlens[static_cast<std::size_t>(n) + 1] - first : in.shape.T;
  const Reader reader{in, b, first, head, head / (in.shape.HV / in.shape.H)};
  const auto state_of = [&](const TensorView& view) {
    std::vector<double> S(K * V);
    if (view)
      for (std::size_t c = 0; c < K; ++c)
        for (std::size_t j = 0; j < V; ++j)
          S[c * V + j] =
              load(view, view.offset(n, head, static_cast<std::int64_t>(v_first ? j : c), static_cast<std::int64_t>(v_first ? c : j)));
    return S;
  };
  std::vector<double> S = state_of(in[Input::initial_state]);
  std::vector<Step> steps;
  for (std::int64_t t = 0; t < length; ++t) {
    steps.push_back(make_step(reader, t, S));
    const Step& step = steps.back();
    for (std::size_t c = 0; c < K; ++c)
      for (std::size_t j = 0; j < V; ++j)
        S[c * V + j] = step.alpha[c] * S[c * V + j] +
                       (dplr ? step.a[c] * step.residual[j] + step.k[c] * step.v[j] : step.beta * step.k[c] * step.residual[j]);
  }
  const auto tokens = static_cast<std::size_t>(length);
  HeadGradients d;
  d.q.assign(tokens * K, 0), d.k = d.g = d.q, d.v.assign(tokens * V, 0), d.dt_bias.assign(K, 0);
  if (dplr)
    d.a = d.b = d.q;
  else
    d.beta.assign(tokens, 0);
  std::vector<double> dS = state_of(cotangents.d_final_state), after = S;
  for (std::size_t t = tokens; t-- > 0;) {
    const Step& step = steps[t];
    std::vector<double> d_o(V), m(V);
    if (cotangents.d_o)
      for (std::size_t j = 0; j < V; ++j)
        d_o[j] = load(cotangents.d_o, cotangents.d_o.offset(b, first + static_cast<std::int64_t>(t), head, static_cast<std::int64_t>(j)));
    double *dq = d.q.data() + t * K, *dk = d.k.data() + t * K;
    const double scale = in.options.scale;
    for (std::size_t c = 0; c < K; ++c)
      for (std::size_t j = 0; j < V; ++j) {
        dq[c] += scale * after[c * V + j] * d_o[j];
        dS[c * V + j] += scale * step.q[c] * d_o[j];
      }
    for (std::size_t c = 0; c < K; ++c)
      for (std::size_t j = 0; j < V; ++j) {
        m[j] += (dplr ? step.a[c] : step.k[c]) * dS[c * V + j];
        d.v[t * V + j] += (dplr ? 1 : step.beta) * step.k[c] * dS[c * V + j];
      }
    for (std::size_t j = 0; !dplr && j < V; ++j) d.beta[t] += step.beta_slope * m[j] * step.residual[j];
    for (std::size_t c = 0; c < K; ++c) {
      double d_alpha = 0; // alpha times the derivative by alpha
      for (std::size_t j = 0; j < V; ++j) {
        const double decayed = step.alpha[c] * step.state[c * V + j];
        if (dplr) {
          dk[c] += dS[c * V + j] * step.v[j];
          d.a[t * K + c] += dS[c * V + j] * step.residual[j];
          d.b[t * K + c] -= step.state[c * V + j] * m[j];
          d_alpha += decayed * dS[c * V + j];
          dS[c * V + j] = step.alpha[c] * dS[c * V + j] - step.b[c] * m[j];
        } else {
          const double d_decayed = dS[c * V + j] - step.beta * step.k[c] * m[j];
          dk[c] += step.beta * (dS[c * V + j] * step.residual[j] - decayed * m[j]);
          d_alpha += decayed * d_decayed;
          dS[c * V + j] = step.alpha[c] * d_decayed;
        }
      }
      d.g[t * K + c] = d_alpha * step.by_x[c];
      d.dt_bias[c] += d_alpha * step.by_x[c];
      d.A_log += d_alpha * step.by_A_log[c];
      d.A_log_square += d_alpha * step.by_A_log[c] * d_alpha * step.by_A_log[c];
    }
    if (in.options.l2norm) {
      normalise_back(step.q, step.norm_q, dq);
      normalise_back(step.k, step.norm_k, dk);
    }
    after = step.state;
  }
  d.initial_state = dS;
  return d;
}

} // namespace kdacheck::cuda
