// The state a problem starts from, the values that the memory already holds, and what the loss sends back.

#include "ingredients.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

constexpr std::uint32_t every = 0xffffffffu;

/// What one token of one value head does to its state, in fp64 from the stored tensors.
struct Step {
  std::vector<double> alpha, key, a, b; ///< [K]; S <- Diag(alpha) S - a (b^T S) + key v^T
};

void read_step(const Problem& p, std::int64_t row, std::int64_t head, Step& step) {
  const auto& s = p.shape;
  const float* key = p.k.data() + (row * s.H + head / (s.HV / s.H)) * s.K;
  const std::int64_t at = row * s.HV + head;
  const double gain =
      p.A_log.empty() || std::isinf(p.A_log[static_cast<std::size_t>(head)]) ? 0.0 : portable::exp(p.A_log[static_cast<std::size_t>(head)]);
  double sum = 1e-6;
  for (std::int64_t c = 0; c < s.K; ++c) sum += static_cast<double>(key[c]) * key[c];
  const double norm = p.options.l2norm ? std::sqrt(sum) : 1.0;
  const double beta = p.beta.empty() ? 1.0 : beta_of(p.options, p.beta[static_cast<std::size_t>(at)]);
  for (std::int64_t c = 0; c < s.K; ++c) {
    const auto i = static_cast<std::size_t>(c);
    const float x = p.g.empty() ? 0.0f : p.g[static_cast<std::size_t>(at * s.K + c)];
    const float bias = p.dt_bias.empty() ? 0.0f : p.dt_bias[static_cast<std::size_t>(head * s.K + c)];
    step.alpha[i] = portable::exp(log_decay(p.options, x, gain, bias));
    step.key[i] = beta * key[c] / norm;
    step.a[i] = p.a.empty() ? step.key[i] : p.a[static_cast<std::size_t>(at * s.K + c)];
    step.b[i] = p.b.empty() ? key[c] / norm * step.alpha[i] : p.b[static_cast<std::size_t>(at * s.K + c)];
  }
}

} // namespace

void make_state(const Recipe& recipe, std::uint32_t head, std::uint32_t sequence, std::span<float> state) {
  const auto K = static_cast<std::uint32_t>(recipe.shape.K), V = static_cast<std::uint32_t>(recipe.shape.V);
  std::vector<double> row(V);
  for (std::uint32_t i = 0; i < K; ++i) {
    const Stream here(recipe.seed, Draw::state, head, sequence, i);
    std::fill(row.begin(), row.end(), 0.0);
    if (recipe.state == StatePattern::gaussian || recipe.state == StatePattern::asymmetric) here.fill_gaussian(row);
    if (recipe.state == StatePattern::asymmetric) // grows by row and falls by column: no transposition goes unseen
      for (std::uint32_t j = 0; j < V; ++j) row[j] = (1.0 + 0.25 * row[j]) * (1.0 + i) / (1.0 + j);
    if (recipe.state == StatePattern::integers && recipe.keys == KeyPattern::walsh) {
      // A combination of key rows with integer coefficients: what any key reads from it is an integer again.
      std::vector<double> direction(K);
      Recipe one = recipe;
      one.key_norm = 1;
      for (std::uint32_t member = 0; member < 2; ++member) {
        make_key(one, {head / static_cast<std::uint32_t>(recipe.shape.HV / recipe.shape.H), sequence, 0xfffffff0u + member}, direction);
        const Stream coefficients(recipe.seed, Draw::state, head, sequence, 0xfffffff0u + member);
        for (std::uint32_t j = 0; j < V; ++j) row[j] += direction[i] * (static_cast<double>(coefficients.below(3, j)) - 1.0);
      }
    } else if (recipe.state == StatePattern::integers) {
      for (std::uint32_t j = 0; j < V; ++j) row[j] = static_cast<double>(here.below(7, j)) - 3.0;
    }
    if (recipe.state == StatePattern::held && i < 2) {
      std::vector<double> direction(K);
      Recipe one = recipe;
      one.key_norm = 1;
      make_key(one, {head / static_cast<std::uint32_t>(recipe.shape.HV / recipe.shape.H), sequence, 0}, direction);
      if (direction[i] != 0)
        for (std::uint32_t j = 0; j < V; ++j) row[j] = (i == 0 ? 4096.0 : 2.0 * (j % 32 + 1)) / direction[i];
    }
    for (std::uint32_t j = 0; j < V; ++j) state[i * V + j] = stored(Format::fp32, row[j] * recipe.state_scale);
  }
}

std::vector<float> walk(const Recipe& recipe, Problem& p, std::uint32_t first_sequence) {
  const auto& s = p.shape;
  const auto K = static_cast<std::size_t>(s.K), V = static_cast<std::size_t>(s.V);
  Step step{std::vector<double>(K), std::vector<double>(K), std::vector<double>(K), std::vector<double>(K)};
  std::vector<double> S(K * V), read(V), noise(V);
  std::vector<float> result(static_cast<std::size_t>(sequence_count(p) * s.HV) * K * V);
  for (const Sequence& sequence : sequences(p))
    for (std::int64_t head = 0; head < s.HV; ++head) {
      const auto place = static_cast<std::size_t>(sequence.index * s.HV + head) * K * V;
      for (std::size_t i = 0; i < K * V; ++i) S[i] = p.initial_state.empty() ? 0.0 : p.initial_state[place + i];
      for (std::int64_t t = 0; t < sequence.length; ++t) {
        const std::int64_t row = sequence.first + t;
        read_step(p, row, head, step);
        std::fill(read.begin(), read.end(), 0.0);
        for (std::size_t i = 0; i < K; ++i)
          for (std::size_t j = 0; j < V; ++j) read[j] += step.b[i] * S[i * V + j];
        float* v = p.v.data() + (row * s.HV + head) * s.V;
        if (recipe.values == ValuePattern::converged) {
          Stream(recipe.seed, Draw::residual, static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(sequence.index) + first_sequence,
                 static_cast<std::uint32_t>(t))
              .fill_gaussian(noise);
          // An empty memory holds nothing yet: the first tokens of a sequence without a state fill it.
          const bool filling = p.initial_state.empty() && t < 4;
          for (std::size_t j = 0; j < V; ++j)
            v[j] = stored(p.formats.qkv, filling ? recipe.value_scale * noise[j] : read[j] + recipe.residual * noise[j]);
        }
        for (std::size_t i = 0; i < K; ++i)
          for (std::size_t j = 0; j < V; ++j) S[i * V + j] = step.alpha[i] * S[i * V + j] - step.a[i] * read[j] + step.key[i] * v[j];
      }
      for (std::size_t i = 0; i < K * V; ++i) result[place + i] = stored(Format::fp32, S[i]);
    }
  return result;
}

void make_loss(const Recipe& recipe, Problem& p) {
  const LossPattern loss = recipe.loss;
  if (loss == LossPattern::none) return;
  const auto& s = p.shape;
  const std::int64_t N = sequence_count(p);
  const auto V = static_cast<std::size_t>(s.V);
  const Stream choice(recipe.seed, Draw::cotangent_place, every, every, every);
  const std::int64_t only_row = s.T * s.B > 0 ? choice.below(static_cast<std::uint32_t>(s.T * s.B), 0) : 0;
  const std::int64_t only_head = choice.below(static_cast<std::uint32_t>(s.HV), 1);
  // Cotangents are numbers of bf16 and of fp16: every output format holds them.
  const auto representable = [](double x) { return round_fp16(round_bf16(static_cast<float>(x))); };
  std::vector<double> row(V);
  if (loss != LossPattern::final_state_only) {
    p.d_o.assign(static_cast<std::size_t>(s.B * s.T * s.HV) * V, 0.0f);
    for (const Sequence& sequence : sequences(p))
      for (std::int64_t t = 0; t < sequence.length; ++t)
        for (std::int64_t head = 0; head < s.HV; ++head) {
          if (loss == LossPattern::single_token && sequence.first + t != only_row) continue;
          if (loss == LossPattern::single_head && head != only_head) continue;
          Stream(recipe.seed, Draw::cotangent_o, static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(sequence.index),
                 static_cast<std::uint32_t>(t))
              .fill_gaussian(row);
          float* out = p.d_o.data() + ((sequence.first + t) * s.HV + head) * s.V;
          for (std::size_t j = 0; j < V; ++j) out[j] = representable(row[j]);
        }
  }
  if (loss == LossPattern::everywhere || loss == LossPattern::final_state_only || loss == LossPattern::single_head) {
    p.d_final_state.assign(static_cast<std::size_t>(N * s.HV * s.K) * V, 0.0f);
    for (std::int64_t n = 0; n < N; ++n)
      for (std::int64_t head = 0; head < s.HV; ++head)
        for (std::int64_t i = 0; i < s.K; ++i) {
          if (loss == LossPattern::single_head && head != only_head) continue;
          Stream(recipe.seed, Draw::cotangent_state, static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(n),
                 static_cast<std::uint32_t>(i))
              .fill_gaussian(row);
          float* out = p.d_final_state.data() + ((n * s.HV + head) * s.K + i) * s.V;
          for (std::size_t j = 0; j < V; ++j) out[j] = representable(row[j]);
        }
  }
}

} // namespace kdacheck
