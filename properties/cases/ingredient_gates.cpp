// The decay of every token, head and channel, in whatever form the kernel takes it. A pattern is drawn either as decay
// itself (then a gate input is found that means it) or, where it is natural, as the gate input of `gate_model`.

#include "ingredients.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

constexpr std::uint32_t every = 0xffffffffu;

constexpr double ln10 = 2.302585092994046, ln200 = 5.298317366548036;

/// Gate inputs are kept within these: sigmoid(40) is 1 - 4e-18 and e^-110 vanishes in fp32.
constexpr double least_logit = -110, most_logit = 40;

/// Whether a form adds dt_bias and has A_log.
bool biased(GateForm form) { return form == GateForm::softplus || form == GateForm::bounded; }

bool raw(GatePattern pattern) {
  return pattern == GatePattern::published_init || pattern == GatePattern::trained || pattern == GatePattern::logits;
}

/// -ln alpha of a gate input z = x + bias.
double decay_of(GateForm form, double lower_bound, double z, double gain) {
  switch (form) {
  case GateForm::softplus: return gain * portable::softplus(z);
  case GateForm::bounded: return -lower_bound * portable::sigmoid(gain * z);
  case GateForm::sigmoid: return portable::softplus(-z);
  case GateForm::absent: return 0;
  default: return -z;
  }
}

/// The input x that means decay d, as nearly as its form can.
double input_meaning(double d, const Options& options, double gain, double bias) {
  switch (options.gate) {
  case GateForm::softplus: return gain > 0 ? std::max(portable::inverse_softplus(d / gain), least_logit) - bias : -bias;
  case GateForm::bounded: {
    if (!(options.lower_bound < 0) || !(gain > 0)) return -bias;
    return std::clamp(portable::logit(d / -static_cast<double>(options.lower_bound)), least_logit, most_logit) / gain - bias;
  }
  case GateForm::sigmoid: return -std::max(portable::inverse_softplus(d), least_logit);
  default: return -d;
  }
}

double gain_of(float A_log) { return std::isinf(A_log) ? 0.0 : portable::exp(A_log); }

/// Decay of one token of a pattern that is not raw.
void make_decay(const Recipe& recipe, const TokenPlace& at, std::span<double> d) {
  const Stream here(recipe.seed, Draw::gate, at.head, at.sequence, at.token);
  const double decay = recipe.decay, spread = recipe.decay_spread;
  std::fill(d.begin(), d.end(), decay);
  switch (recipe.gates) {
  case GatePattern::jitter:
    here.fill_uniform(d);
    for (double& x : d) x = decay * (1.0 + spread * (2.0 * x - 1.0));
    break;
  case GatePattern::per_head:
    if (at.head % 2 == 1) std::fill(d.begin(), d.end(), decay * (1.0 - spread));
    break;
  case GatePattern::per_channel:
    for (std::size_t c = 1; c < d.size(); c += 2) d[c] = decay * (1.0 - spread);
    break;
  case GatePattern::mixed: {
    std::vector<double> token(d.size());
    here.fill_uniform(token);
    Stream(recipe.seed, Draw::channel_rate, at.head, every, every).fill_uniform(d);
    for (std::size_t c = 0; c < d.size(); ++c) d[c] = decay * portable::exp(-4.0 * spread * ln10 * d[c]) * (1.0 + 0.5 * token[c]);
    break;
  }
  case GatePattern::sparse_reset:
    if (!(here.uniform(0) < spread)) std::fill(d.begin(), d.end(), 0.0);
    break;
  case GatePattern::softplus_gauss:
    here.fill_gaussian(d);
    for (double& x : d) x = decay * portable::softplus(spread * x);
    break;
  default: break;
  }
  for (double& x : d) x = std::max(x, 0.0);
}

/// Gate input x of one token of a raw pattern.
void make_input(const Recipe& recipe, const HeadGate& gate, const TokenPlace& at, std::span<double> x) {
  const Stream here(recipe.seed, Draw::gate, at.head, at.sequence, at.token);
  if (recipe.gates == GatePattern::logits) {
    here.fill_uniform(x);
    for (std::size_t c = 0; c < x.size(); ++c)
      x[c] = recipe.decay_center + recipe.decay * (2.0 * x[c] - 1.0) - (biased(recipe.gate_model) ? gate.bias[c] : 0.0);
    return;
  }
  here.fill_gaussian(x);
  for (double& value : x) value *= recipe.decay_spread;
}

} // namespace

HeadGate head_gate(const Recipe& recipe, std::uint32_t head) {
  const auto K = static_cast<std::size_t>(recipe.shape.K);
  const Stream gains(recipe.seed, Draw::gate_gain, head, every, every), biases(recipe.seed, Draw::gate_bias, head, every, every);
  const double u = gains.uniform(0);
  double gain = 1.0 + (std::max(1.0, static_cast<double>(recipe.gate_gain)) - 1.0) * u;
  if (recipe.gates == GatePattern::published_init) gain = recipe.decay * (1.0 + 15.0 * u);
  if (recipe.gates == GatePattern::trained) gain = recipe.decay * portable::exp(u * ln200);
  if (recipe.gates == GatePattern::logits) gain = 1.0;
  if (recipe.dead_heads && head % 2 == 0 && biased(recipe.gate_model)) gain = 0;
  // A dead head's decay is handed to another form of gate by parameters that live.
  const bool lives = gain > 0 || recipe.options.gate != recipe.gate_model;
  HeadGate gate;
  gate.A_log = gain > 0 ? static_cast<float>(portable::log(gain)) : lives ? 0.0f : -std::numeric_limits<float>::infinity();
  gate.model_gain = gain > 0 ? gain_of(gate.A_log) : 0.0;
  gate.bias.assign(K, 0.0f);
  if (!recipe.gate_bias) return gate;
  for (std::size_t c = 0; c < K; ++c) {
    const auto i = static_cast<std::uint32_t>(c);
    if (recipe.gates == GatePattern::published_init) { // dt log-uniform in [1e-3, 0.1]
      const double dt = 1e-3 * portable::exp(biases.uniform(i) * 2.0 * ln10);
      gate.bias[c] = static_cast<float>(portable::inverse_softplus(dt));
    } else {
      gate.bias[c] = static_cast<float>(biases.gaussian(i));
    }
  }
  if (recipe.shared_decay) std::fill(gate.bias.begin(), gate.bias.end(), gate.bias.front());
  return gate;
}

double log_decay(const Options& options, float x, double gain, double bias) {
  if (options.gate == GateForm::absent) return 0;
  if (options.gate == GateForm::log_decay) return x;
  return -decay_of(options.gate, options.lower_bound, biased(options.gate) ? x + bias : x, gain);
}

void make_gate(const Recipe& recipe, const HeadGate& gate, const TokenPlace& at, Format format, std::span<float> row) {
  const GateForm model = recipe.gate_model, form = recipe.options.gate;
  const double lower_bound = recipe.options.lower_bound, gain = gain_of(gate.A_log);
  const bool dead = !(gate.model_gain > 0);
  std::vector<double> x(row.size());
  if (raw(recipe.gates) || dead) make_input(recipe, gate, at, x);
  if (recipe.shared_decay) std::fill(x.begin(), x.end(), x.front());
  if (!((raw(recipe.gates) || dead) && model == form)) { // hand over a decay
    if (dead)
      std::fill(x.begin(), x.end(), decay_of(model, lower_bound, 0.0, 0.0));
    else if (raw(recipe.gates))
      for (std::size_t c = 0; c < x.size(); ++c)
        x[c] = decay_of(model, lower_bound, biased(model) ? x[c] + gate.bias[c] : x[c], gate.model_gain);
    else
      make_decay(recipe, at, x);
    if (recipe.shared_decay) std::fill(x.begin(), x.end(), x.front());
    for (std::size_t c = 0; c < x.size(); ++c) x[c] = input_meaning(x[c], recipe.options, gain, biased(form) ? gate.bias[c] : 0.0);
  }
  for (std::size_t c = 0; c < row.size(); ++c) row[c] = stored(format, x[c]);
}

} // namespace kdacheck
