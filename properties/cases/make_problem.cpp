#include "ingredients.hpp"

#include <stdexcept>

namespace kdacheck {
namespace {

/// Tokens that fill a warm state before the problem starts, and the sequence numbers whose streams they use.
constexpr std::int64_t warm_tokens = 64;
constexpr std::uint32_t warm_sequence = 0x80000000u;

std::size_t elements(Input input, const Shape& shape, std::int64_t N) {
  const auto extents = shape_of(input, shape, N);
  return static_cast<std::size_t>(extents[0] * extents[1] * extents[2] * extents[3]);
}

/// Writes one token at a time; holds the rows it works on.
struct Writer {
  const Recipe& recipe;
  Problem& p;
  std::uint32_t first_sequence;
  std::vector<HeadGate> gates{};
  std::vector<double> query{}, key{}, value{}, log_alpha{}, a{}, b{};

  void write_keys(const Sequence& sequence, std::int64_t t) {
    const auto& s = p.shape;
    for (std::int64_t h = 0; h < s.H; ++h) {
      const TokenPlace at{static_cast<std::uint32_t>(h), first_sequence + static_cast<std::uint32_t>(sequence.index),
                          static_cast<std::uint32_t>(t)};
      make_query(recipe, at, query);
      make_key(recipe, at, key);
      const std::size_t row = static_cast<std::size_t>(((sequence.first + t) * s.H + h) * s.K);
      for (std::size_t c = 0; c < key.size(); ++c) {
        p.q[row + c] = stored(p.formats.qkv, query[c]);
        p.k[row + c] = stored(p.formats.qkv, key[c]);
      }
    }
  }

  void write_head(const Sequence& sequence, std::int64_t t, std::int64_t head, double beta) {
    const auto& s = p.shape;
    const TokenPlace at{static_cast<std::uint32_t>(head), first_sequence + static_cast<std::uint32_t>(sequence.index),
                        static_cast<std::uint32_t>(t)};
    const std::size_t place = static_cast<std::size_t>((sequence.first + t) * s.HV + head);
    const auto K = static_cast<std::size_t>(s.K), V = static_cast<std::size_t>(s.V);
    make_value(recipe, at, value);
    for (std::size_t c = 0; c < V; ++c) p.v[place * V + c] = stored(p.formats.qkv, value[c]);
    const HeadGate& gate = gates[static_cast<std::size_t>(head)];
    if (!p.g.empty()) make_gate(recipe, gate, at, p.formats.gate, {p.g.data() + place * K, K});
    if (p.options.rule == Rule::kda) {
      p.beta[place] = stored_beta(p.options, p.formats.beta, beta);
      return;
    }
    const double gain = std::isinf(gate.A_log) ? 0.0 : portable::exp(gate.A_log);
    for (std::size_t c = 0; c < K; ++c) log_alpha[c] = log_decay(p.options, p.g.empty() ? 0.0f : p.g[place * K + c], gain, gate.bias[c]);
    const std::size_t row = static_cast<std::size_t>(((sequence.first + t) * s.H + head / (s.HV / s.H)) * s.K);
    make_dplr(recipe, at, {p.k.data() + row, K}, log_alpha, a, b);
    const double factor = recipe.dplr == DplrPattern::of_kda ? beta : 1.0;
    for (std::size_t c = 0; c < K; ++c) {
      p.a[place * K + c] = stored(p.formats.qkv, factor * a[c]);
      p.b[place * K + c] = stored(p.formats.qkv, b[c]);
    }
  }
};

/// Everything but the state, converged values and the loss.
Problem tokens_of(const Recipe& recipe, const InputFormats& formats, std::uint32_t first_sequence) {
  Problem p;
  p.shape = recipe.shape;
  p.options = recipe.options;
  p.formats = formats;
  if (!recipe.lengths.empty()) {
    p.cu_seqlens.push_back(0);
    for (std::int64_t length : recipe.lengths) p.cu_seqlens.push_back(p.cu_seqlens.back() + length);
  }
  const auto& s = p.shape;
  const std::int64_t N = sequence_count(p);
  const bool parametric = recipe.options.gate == GateForm::softplus || recipe.options.gate == GateForm::bounded;
  for (Input input : {Input::q, Input::k, Input::v}) p[input].resize(elements(input, s, N));
  if (recipe.options.gate != GateForm::absent) p.g.resize(elements(Input::g, s, N));
  if (recipe.options.rule == Rule::kda)
    p.beta.resize(elements(Input::beta, s, N));
  else
    for (Input input : {Input::a, Input::b}) p[input].resize(elements(input, s, N));

  const auto K = static_cast<std::size_t>(s.K);
  Writer writer{.recipe = recipe, .p = p, .first_sequence = first_sequence};
  writer.query.resize(K);
  writer.key = writer.log_alpha = writer.a = writer.b = writer.query;
  writer.value.resize(static_cast<std::size_t>(s.V));
  for (std::int64_t head = 0; head < s.HV; ++head) {
    writer.gates.push_back(head_gate(recipe, static_cast<std::uint32_t>(head)));
    if (!parametric) continue;
    p.A_log.push_back(writer.gates.back().A_log);
    if (recipe.gate_bias) p.dt_bias.insert(p.dt_bias.end(), writer.gates.back().bias.begin(), writer.gates.back().bias.end());
  }

  // DPLR hands over beta k instead of k; value heads of a group share k, so they share beta too.
  const bool folded = recipe.options.rule == Rule::dplr && recipe.dplr == DplrPattern::of_kda;
  const std::int64_t group = s.HV / s.H;
  for (const Sequence& sequence : sequences(p)) {
    const auto index = first_sequence + static_cast<std::uint32_t>(sequence.index);
    for (std::int64_t t = 0; t < sequence.length; ++t) writer.write_keys(sequence, t);
    for (std::int64_t head = 0; head < s.HV; ++head) {
      const auto betas = make_betas(recipe, static_cast<std::uint32_t>(folded ? head / group * group : head), index, sequence.length);
      for (std::int64_t t = 0; t < sequence.length; ++t) writer.write_head(sequence, t, head, betas[static_cast<std::size_t>(t)]);
      if (!folded || head % group != group - 1) continue;
      for (std::int64_t t = 0; t < sequence.length; ++t) {
        float* key = p.k.data() + ((sequence.first + t) * s.H + head / group) * s.K;
        for (std::size_t c = 0; c < K; ++c) key[c] = stored(formats.qkv, betas[static_cast<std::size_t>(t)] * key[c]);
      }
    }
  }
  return p;
}

/// States that the same traffic leaves behind: what a sequence starts from in the middle of a conversation. The same
/// for all stored formats.
std::vector<float> warm_state(const Recipe& recipe) {
  Recipe before = recipe;
  before.shape.B = sequence_count(recipe);
  before.shape.T = warm_tokens;
  before.lengths.clear();
  before.state = StatePattern::absent;
  if (before.values == ValuePattern::zero || before.values == ValuePattern::converged) before.values = ValuePattern::gaussian;
  Problem problem = tokens_of(before, InputFormats{}, warm_sequence);
  auto states = walk(before, problem, warm_sequence);
  for (float& x : states) x = stored(Format::fp32, static_cast<double>(x) * recipe.state_scale);
  return states;
}

} // namespace

Problem make_problem(const Recipe& recipe, const InputFormats& formats) {
  Problem p = tokens_of(recipe, formats, 0);
  const auto& s = p.shape;
  const std::int64_t N = sequence_count(p);
  if (recipe.state == StatePattern::warm) {
    p.initial_state = warm_state(recipe);
  } else if (recipe.state != StatePattern::absent) {
    const auto size = static_cast<std::size_t>(s.K * s.V);
    p.initial_state.resize(static_cast<std::size_t>(N * s.HV) * size);
    for (std::int64_t n = 0; n < N; ++n)
      for (std::int64_t head = 0; head < s.HV; ++head)
        make_state(recipe, static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(n),
                   {p.initial_state.data() + static_cast<std::size_t>(n * s.HV + head) * size, size});
  }
  if (recipe.values == ValuePattern::converged) walk(recipe, p, 0);
  make_loss(recipe, p);
  return p;
}

} // namespace kdacheck
