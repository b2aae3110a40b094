// Chunkwise KDA, one sequence and head at a time, written to be read: every scalar is fp32, operands are rounded to the
// contract's formats where they enter a product, scores are formed pair by pair with e^{G_i - G_j} in one piece, and
// (I + L) T = I is solved by forward substitution. `on(Fault::x)` marks every place where a fault can be planted.

#include "chunk_with_faults.hpp"

#include "faulty_inverse.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <mutex>

namespace kdacheck::faults {
namespace {

float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }
float sigmoid(float x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

std::int64_t key_head_of(const Shape& shape, Fault fault, std::int64_t head) {
  const auto group = static_cast<std::uint64_t>(shape.HV / shape.H);
  if (fault == Fault::group_by_modulo) return head % shape.H;
  if (fault == Fault::group_by_shift) return std::min(head >> (std::bit_width(group) - 1), shape.H - 1);
  return head / static_cast<std::int64_t>(group);
}

/// Length of the packed member before a sequence if the two are equally long (and not single tokens), else 0.
std::int64_t equal_predecessor(const Inputs& in, const Sequence& sequence) {
  if (in.cu_seqlens.empty() || sequence.index == 0 || sequence.length < 2) return 0;
  const auto i = static_cast<std::size_t>(sequence.index);
  return in.cu_seqlens[i] - in.cu_seqlens[i - 1] == sequence.length ? sequence.length : 0;
}

constexpr std::int64_t chunks_of_a_rank = 4;

} // namespace

HeadRun::HeadRun(const Inputs& inputs, const Contract& promised, Fault planted, const Sequence& one, std::int64_t value_head, SumTree how)
    : in(inputs), contract(promised), fault(planted), tree(how), sequence(one), head(value_head), K(inputs.shape.K), V(inputs.shape.V),
      C(promised.chunk), group(inputs.shape.HV / inputs.shape.H), key_head(key_head_of(inputs.shape, planted, value_head)),
      key_rows_back(on(Fault::equal_length_rereads) ? equal_predecessor(inputs, one) : 0) {
  const auto CK = static_cast<std::size_t>(C * K), CV = static_cast<std::size_t>(C * V), CC = static_cast<std::size_t>(C * C);
  for (auto* matrix : {&q, &k, &G, &kd, &qd, &kr}) matrix->assign(CK, 0);
  for (auto* matrix : {&v, &Z, &U}) matrix->assign(CV, 0);
  for (auto* matrix : {&Akk, &Aqk, &T}) matrix->assign(CC, 0);
  if (on(Fault::upper_triangle_unwritten)) Aqk.assign(CC, 0.01f); // what the memory held before
  beta.assign(static_cast<std::size_t>(C), 0);
  S.assign(static_cast<std::size_t>(K * V), 0);
}

float HeadRun::exponential(float x) const {
  if (on(Fault::exp2_for_exp)) return std::exp2(x);
  if (on(Fault::clamped_exponent)) x = std::max(x, -20.0f);
  if (on(Fault::approximate_exp)) return std::exp(x) + 2e-4f * std::sin(37 * x) * (x < 0 ? 1.0f : 0.0f);
  if (on(Fault::faint_decay_flushed) && x < -20) return 0;
  const float e = std::exp(x);
  return on(Fault::alpha_bf16) ? round_bf16(e) : e;
}

float HeadRun::log_decay(std::int64_t row, std::int64_t c) const {
  const TensorView& g = in[Input::g];
  if (!g || on(Fault::no_decay)) return 0;
  const std::int64_t from = on(Fault::decay_of_head_zero) ? 0 : head;
  if (on(Fault::batch_wraps_at_four)) row = row / in.shape.T % 4 * in.shape.T + row % in.shape.T;
  float x = element(g, row, from, c);
  if (on(Fault::gate_bf16)) x = round_bf16(x);
  const TensorView& a_log = in[Input::A_log];
  const TensorView& bias = in[Input::dt_bias];
  const float log_rate = a_log && !on(Fault::a_log_ignored) ? load(a_log, (on(Fault::a_log_of_head_zero) ? 0 : head) * a_log.stride[0]) : 0;
  const float shift = !bias || on(Fault::bias_ignored) ? 0 : load(bias, bias.offset(head, on(Fault::bias_per_head) ? 0 : c));
  float result = x;
  switch (in.options.gate) {
  case GateForm::softplus:
    result = -std::exp(log_rate) * softplus(x + shift);
    if (on(Fault::a_log_minus_infinity)) result = -std::exp(log_rate + std::log(softplus(x + shift))) + 0 * log_rate;
    if (on(Fault::bias_after_scaling)) result = -std::exp(log_rate) * softplus(x) - shift * (shift > 0 ? 1.0f : 0.0f);
    break;
  case GateForm::bounded: {
    const float bound = on(Fault::lower_bound_fixed) ? -5.0f : in.options.lower_bound;
    result = on(Fault::clamped_softplus) ? std::max(-std::exp(log_rate) * softplus(x + shift), bound)
                                         : bound * sigmoid(std::exp(log_rate) * (x + shift));
    break;
  }
  case GateForm::sigmoid: result = -softplus(-x); break;
  default: break;
  }
  if (on(Fault::gate_clamped)) result = std::max(result, -8.0f);
  if (on(Fault::last_batch_of_whole_chunks) && in.cu_seqlens.empty() && in.shape.B > 1 && in.shape.T % 64 == 0 &&
      row == in.shape.B * in.shape.T - in.shape.T / 2)
    result -= 1e-3f;
  return result;
}

float HeadRun::write_strength(std::int64_t row) const {
  const TensorView& tensor = in[Input::beta];
  std::int64_t from = on(Fault::previous_beta) ? std::max(row - 1, sequence.first) : row;
  if (on(Fault::odd_start_rounded_down) && !in.cu_seqlens.empty() && sequence.first % 2 == 1) --from;
  if (on(Fault::decode_beta_of_first_sequence)) from = row % in.shape.T;
  std::int64_t of = on(Fault::beta_of_query_head) ? key_head : on(Fault::heads_wrap_at_eight) ? head % 8 : head;
  if (on(Fault::wide_values_share_beta) && V > 128) of = 0;
  float x = element(tensor, from, of, 0);
  if (in.options.beta != BetaForm::value && !on(Fault::sigmoid_missing)) x = sigmoid(x);
  if (in.options.beta == BetaForm::twice_sigmoid && !on(Fault::twice_sigmoid_as_sigmoid)) x *= 2;
  if (on(Fault::beta_bf16)) x = round_bf16(x);
  if (on(Fault::beta_fp16)) x = round_fp16(x);
  return x;
}

void HeadRun::load_direction(Input which, std::int64_t row, float* destination) const {
  float squares = 0;
  if (which == Input::k) row -= key_rows_back;
  for (std::int64_t c = 0; c < K; ++c) {
    const bool dropped = (on(Fault::key_tail_dropped) && c >= K / 8 * 8 && K > 8) || (on(Fault::key_bound_is_value_bound) && c >= V) ||
                         (on(Fault::full_tile_short) && K == 128 && V == 128 && c == K - 1) ||
                         (on(Fault::seventh_channel_dropped) && K % 8 == 7 && in.N() > 1 && !in[Input::initial_state] && c == K - 1);
    destination[c] = dropped ? 0 : element(in[which], row, key_head, c);
    if (on(Fault::last_channel_duplicated) && c == K - 1 && K > 1 && K % 2 == 1) destination[c] = destination[c - 1];
    squares += destination[c] * destination[c];
  }
  if (on(Fault::short_keys_flushed) && which == Input::k && !in.options.l2norm && squares < 1e-8f) std::fill_n(destination, K, 0.0f);
  if (on(Fault::keys_renormalised) && which == Input::k && !in.options.l2norm && std::fabs(squares - 1) < 0x1p-7f)
    for (std::int64_t c = 0; c < K; ++c) destination[c] /= std::sqrt(squares);
  if (!in.options.l2norm || (on(Fault::query_not_normalised) && which == Input::q)) return;
  float eps = 1e-6f;
  if (on(Fault::eps_of_mean)) eps *= static_cast<float>(K);
  if (on(Fault::eps_missing)) eps = 0;
  const float norm = on(Fault::norm_squared) ? squares + eps : std::sqrt(squares + eps);
  for (std::int64_t c = 0; c < K; ++c) destination[c] /= norm;
}

void HeadRun::load_chunk(std::int64_t first, std::int64_t length) {
  const std::int64_t rows = in.shape.B * in.shape.T;
  const bool reads_on = on(Fault::tail_reads_next_sequence);
  const bool stale = on(Fault::stale_tail_rows) || (on(Fault::tail_mask_only_when_packed) && in.cu_seqlens.empty());
  for (std::int64_t i = 0; i < C; ++i) {
    const bool inside = i < length || (reads_on && first + i < rows);
    if (!inside && stale) continue;
    for (std::int64_t c = 0; c < K; ++c) q[at(i, c)] = k[at(i, c)] = 0;
    for (std::int64_t j = 0; j < V; ++j) v[static_cast<std::size_t>(i * V + j)] = 0;
    beta[static_cast<std::size_t>(i)] = 0;
    if (!inside) continue;
    load_direction(Input::q, first + i, &q[at(i, 0)]);
    load_direction(Input::k, first + i, &k[at(i, 0)]);
    for (std::int64_t j = 0; j < V; ++j) {
      const bool dropped = (on(Fault::value_tail_dropped) && j >= V / 16 * 16 && V > 16) ||
                           (on(Fault::lone_value_channel_dropped) && V > 16 && V % 16 == 1 && j == V - 1);
      v[static_cast<std::size_t>(i * V + j)] = dropped ? 0 : element(in[Input::v], first + i, head, j);
    }
    beta[static_cast<std::size_t>(i)] = write_strength(first + i);
  }
  used = reads_on ? std::min(C, rows - first) : stale || on(Fault::unmasked_tail_decay) ? C : length;
  for (std::int64_t c = 0; c < K; ++c) {
    float sum = on(Fault::cumsum_over_boundaries) && first > 0 && first == sequence.first ? log_decay(first - 1, c) : 0;
    for (std::int64_t i = 0; i < C; ++i) {
      if (i < length || (reads_on && first + i < rows)) sum += log_decay(first + i, c);
      sum = as_input(contract.cumsum, on(Fault::cumsum_bf16) ? round_bf16(sum) : sum);
      G[at(i, c)] = i < length || !on(Fault::unmasked_tail_decay) ? sum : 0;
    }
  }
  if (const TensorView& g = in[Input::g]; g && on(Fault::gate_read_past_width) && !std::has_single_bit(static_cast<std::uint64_t>(K)))
    for (std::int64_t i = 0; i < length; ++i) { // the masked channel of a tile: e^g of whatever lies there, times 0
      const std::int64_t row = first + i;
      q[at(i, 0)] += 0 * std::exp(load(g, g.offset(row / in.shape.T, row % in.shape.T, head, K - 1) + 1));
    }
  if (on(Fault::query_bf16))
    for (float& x : q) x = round_bf16(x);
  if (on(Fault::value_bf16))
    for (float& x : v) x = round_bf16(x);
}

/// e^{G_i - G_j} of channel c, in one piece unless a fault says otherwise.
float HeadRun::pair_decay(std::int64_t i, std::int64_t j, std::int64_t c, std::int64_t length) const {
  const float Gi = G[at(i, c)], Gj = G[at(j, c)];
  float anchor;
  if (on(Fault::anchor_after_rows))
    anchor = G[at(std::min(C - 1, i / 16 * 16 + 15), c)];
  else if (on(Fault::one_anchor_per_chunk))
    anchor = G[at(std::min(C / 2, length - 1), c)];
  else if (on(Fault::future_anchor))
    anchor = G[at(std::min(i / 16 * 16 + 8, length - 1), c)];
  else if (on(Fault::split_exponent) || on(Fault::split_decay_bf16))
    anchor = 0;
  else if (on(Fault::decay_from_chunk_end))
    anchor = G[at(length - 1, c)];
  else
    return exponential(Gi - Gj);
  const float left = exponential(Gi - anchor), right = exponential(anchor - Gj);
  return on(Fault::split_decay_bf16) ? round_bf16(left) * round_bf16(right) : left * right;
}

void HeadRun::form_scores(std::int64_t length) {
  const float scale = scale_of_query();
  const auto scored = [&](float x) {
    if (on(Fault::scores_bf16)) x = round_bf16(x);
    if (on(Fault::scores_tf32)) x = round_tf32(x);
    return score(x);
  };
  std::vector<float> of_key(static_cast<std::size_t>(K)), of_query(of_key);
  for (std::int64_t i = 0; i < used; ++i)
    for (std::int64_t j = 0; j < used; ++j) {
      const bool wanted = j <= i;
      if (!wanted && !on(Fault::mask_by_multiplication)) {
        if (!on(Fault::upper_triangle_unwritten)) Akk[pair(i, j)] = Aqk[pair(i, j)] = 0;
        continue;
      }
      for (std::int64_t c = 0; c < K; ++c) {
        const float decay = pair_decay(i, j, c, length);
        const float shifted = on(Fault::exclusive_query_decay) && i > j ? exponential(G[at(i - 1, c)] - G[at(j, c)]) : decay;
        of_key[static_cast<std::size_t>(c)] = scored(k[at(i, c)]) * scored(k[at(j, c)] * decay);
        of_query[static_cast<std::size_t>(c)] = scored(q[at(i, c)]) * scored(k[at(j, c)] * shifted);
      }
      const float kk = sum(0, K, [&](std::int64_t c) { return of_key[static_cast<std::size_t>(c)]; });
      float qk = sum(0, K, [&](std::int64_t c) { return of_query[static_cast<std::size_t>(c)]; });
      const float mask_kk = j < i ? 1.0f : 0.0f, mask_qk = j <= i ? 1.0f : 0.0f;
      Akk[pair(i, j)] = on(Fault::mask_by_multiplication) ? kk * mask_kk : (j < i ? kk : 0);
      if (on(Fault::diagonal_missing) && i == j) qk = 0;
      if (on(Fault::diagonal_twice) && i == j) qk *= 2;
      Aqk[pair(i, j)] = operand(on(Fault::mask_by_multiplication) ? scale * qk * mask_qk : scale * qk);
    }
}

float HeadRun::scale_of_query() const {
  if (on(Fault::scale_ignored)) return 1;
  if (on(Fault::scale_twice_at_odd_width) && K > 64 && K % 64 == 32) return in.options.scale * in.options.scale;
  if (on(Fault::scale_clamped)) return std::min(in.options.scale, 2.0f);
  if (on(Fault::scale_of_value_dim)) return 1 / std::sqrt(static_cast<float>(V));
  return on(Fault::scale_twice) ? in.options.scale * in.options.scale : in.options.scale;
}

void HeadRun::chunk(std::int64_t first, std::int64_t length, std::int64_t index, float* o) {
  load_chunk(first, length);
  std::int64_t end = on(Fault::last_decay_of_full_chunk) && length < C ? -1 : length - 1; // -1: zero padded, decay 1
  if (used > length && !on(Fault::unmasked_tail_decay)) end = used - 1;
  const auto op = [&](float x) { return operand(x); };
  const float scale = scale_of_query();
  for (std::int64_t i = 0; i < used; ++i)
    for (std::int64_t c = 0; c < K; ++c) {
      const float G_end = end < 0 ? 0 : G[at(end, c)];
      const float toward_end = on(Fault::inclusive_key_decay) && i > 0 ? G_end - G[at(i - 1, c)] : G_end - G[at(i, c)];
      float own = exponential(G[at(i, c)]);
      if (on(Fault::gate_times_zero) && own == 0) own = std::exp(-G[at(i, c)]) * 0.0f;
      kd[at(i, c)] = op(k[at(i, c)] * (on(Fault::erase_before_decay) ? exponential(i > 0 ? G[at(i - 1, c)] : 0.0f) : own));
      qd[at(i, c)] = op(scale * q[at(i, c)] * (on(Fault::exclusive_query_decay) ? exponential(i > 0 ? G[at(i - 1, c)] : 0.0f) : own));
      kr[at(i, c)] = op(k[at(i, c)] * exponential(end < 0 ? std::min(0.0f, toward_end) : toward_end));
      if (on(Fault::aliased_buffers) && K >= 64 && i == 3) kr[at(i, c)] = kd[at(i, c)];
    }
  form_scores(length);
  const bool delta = !on(Fault::no_delta_term) && !(on(Fault::delta_only_when_gated) && in.options.gate == GateForm::absent);
  const bool twice = on(Fault::delta_twice) && in.options.gate != GateForm::absent;
  const float erased = twice ? 2.0f : 1.0f;
  for (std::int64_t i = 0; i < used; ++i)
    for (std::int64_t j = 0; j < used; ++j)
      T[pair(i, j)] = delta ? round_to(contract.solve, erased * beta[static_cast<std::size_t>(i)] * Akk[pair(i, j)]) : 0;
  invert(T, used, C, fault, contract.solve);
  for (float& x : T) x = op(x);

  std::vector<float> read = S; // the state as an operand
  for (float& x : read) x = op(x);
  std::vector<float> last_stored(static_cast<std::size_t>(V));
  for (std::int64_t i = 0; i < used; ++i)
    for (std::int64_t j = 0; j < V; ++j) {
      const bool across = (on(Fault::state_transposed) || on(Fault::delta_transposed)) && index > 0;
      const float stored = sum(0, delta ? K : 0, [&](std::int64_t c) { return kd[at(i, c)] * read[state_at(c, j, across)]; });
      const float b = beta[static_cast<std::size_t>(i)] * (on(Fault::wide_values_lose_beta) && j >= 128 ? 0.5f : 1.0f),
                  value = v[static_cast<std::size_t>(i * V + j)];
      last_stored[static_cast<std::size_t>(j)] = stored;
      float residual = value - erased * stored;
      if (on(Fault::residual_bf16) || on(Fault::residual_bf16_of_bf16)) residual = round_bf16(round_bf16(value) - round_bf16(stored));
      float z = b * residual;
      if (on(Fault::beta_not_on_value)) z = value - b * stored;
      if (on(Fault::beta_on_erase_twice)) z = b * (value - b * stored);
      Z[static_cast<std::size_t>(i * V + j)] = op(z);
    }
  const bool reversed = on(Fault::order_varies) && vary(1) % 2 == 1;
  for (std::int64_t i = 0; i < used; ++i)
    for (std::int64_t j = 0; j < V; ++j) {
      U[static_cast<std::size_t>(i * V + j)] = op(sum(0, i + 1, [&](std::int64_t step) {
        const std::int64_t m = reversed ? i - step : step;
        return T[pair(i, m)] * Z[static_cast<std::size_t>(m * V + j)];
      }));
    }
  if (on(Fault::state_operand_destroyed) && contract.state_v_first && K > 64)
    std::copy(last_stored.begin(), last_stored.end(), read.begin());
  write_outputs(length, index, read, o);
  if (on(Fault::transition_product_bf16)) multiply_transitions(index);
  carry(index, end);
  if (on(Fault::transition_product_bf16)) hand_to_next_rank(index);
}

float HeadRun::decay_sum(std::int64_t first, std::int64_t length, std::int64_t c) const {
  return sum(0, length, [&](std::int64_t i) { return log_decay(first + i, c); });
}

/// The chunk's transition e^{G_C} - kr^T T beta kd joins the product over a rank of four chunks, in bf16 and exactly.
void HeadRun::multiply_transitions(std::int64_t index) {
  const auto entry = [this](std::int64_t row, std::int64_t column) { return static_cast<std::size_t>(row * K + column); };
  if (index % chunks_of_a_rank == 0) {
    rank_state = S;
    product.assign(static_cast<std::size_t>(K * K), 0);
    for (std::int64_t c = 0; c < K; ++c) product[entry(c, c)] = 1;
    exact_product = product;
  }
  std::vector<float> erased(static_cast<std::size_t>(used * K));
  for (std::int64_t i = 0; i < used; ++i)
    for (std::int64_t c = 0; c < K; ++c)
      erased[at(i, c)] = sum(0, i + 1, [&](std::int64_t m) { return T[pair(i, m)] * beta[static_cast<std::size_t>(m)] * kd[at(m, c)]; });
  std::vector<float> transition(product.size());
  for (std::int64_t a = 0; a < K; ++a)
    for (std::int64_t c = 0; c < K; ++c)
      transition[entry(a, c)] =
          (a == c ? exponential(G[at(used - 1, c)]) : 0) - sum(0, used, [&](std::int64_t i) { return kr[at(i, a)] * erased[at(i, c)]; });
  for (auto* factor : {&product, &exact_product}) {
    const std::vector<float> before = *factor;
    for (std::int64_t a = 0; a < K; ++a)
      for (std::int64_t c = 0; c < K; ++c) {
        const float x = sum(0, K, [&](std::int64_t b) { return transition[entry(a, b)] * before[entry(b, c)]; });
        (*factor)[entry(a, c)] = factor == &product ? round_bf16(x) : x;
      }
  }
}

/// The next rank starts from what this one wrote and the rounded product of what it was given.
void HeadRun::hand_to_next_rank(std::int64_t index) {
  if (index % chunks_of_a_rank != chunks_of_a_rank - 1) return;
  for (std::int64_t c = 0; c < K; ++c)
    for (std::int64_t j = 0; j < V; ++j)
      S[static_cast<std::size_t>(c * V + j)] += sum(0, K, [&](std::int64_t b) {
        const auto place = static_cast<std::size_t>(c * K + b);
        return (product[place] - exact_product[place]) * rank_state[static_cast<std::size_t>(b * V + j)];
      });
}

void HeadRun::write_outputs(std::int64_t length, std::int64_t index, const std::vector<float>& read, float* o) {
  for (std::int64_t i = 0; i < length; ++i)
    for (std::int64_t j = 0; j < V; ++j) {
      const bool across = on(Fault::state_transposed) && index > 0;
      const float stored = sum(0, K, [&](std::int64_t c) { return qd[at(i, c)] * read[state_at(c, j, across)]; });
      const std::int64_t last = on(Fault::upper_triangle_unwritten) || on(Fault::mask_by_multiplication) ? used - 1
                                : on(Fault::read_before_write)                                           ? i - 1
                                                                                                         : i;
      float result = sum(
          0, last + 1, [&](std::int64_t m) { return Aqk[pair(i, m)] * U[static_cast<std::size_t>(m * V + j)]; }, stored);
      if (on(Fault::output_through_fp16)) result = round_fp16(result);
      if (on(Fault::output_bf16)) result = round_bf16(result);
      if (on(Fault::subnormals_flushed) && std::fabs(result) < 1e-6f) result = 0;
      if (on(Fault::rarely_nan) && vary(1) % 4001 == 4000) result = std::numeric_limits<float>::quiet_NaN();
      o[i * V + j] = result;
    }
}

void HeadRun::carry(std::int64_t index, std::int64_t end) {
  for (std::int64_t c = 0; c < K; ++c) {
    float decay = end < 0 ? 1.0f : exponential(G[at(end, c)]);
    if (on(Fault::carry_not_decayed) && index > 0) decay = 1;
    if (on(Fault::carry_dropped) && index == 1) decay = 0;
    if (on(Fault::carry_decay_bf16)) decay = round_bf16(decay);
    for (std::int64_t j = 0; j < V; ++j) {
      const float written = sum(0, used, [&](std::int64_t i) { return kr[at(i, c)] * U[static_cast<std::size_t>(i * V + j)]; });
      float s = decay * S[static_cast<std::size_t>(c * V + j)] + written;
      if (on(Fault::state_bf16)) s = round_bf16(s);
      if (on(Fault::state_fp16)) s = round_fp16(s);
      if (on(Fault::truncated_state)) s = truncate_tf32(s);
      S[static_cast<std::size_t>(c * V + j)] = round_to(contract.state, s);
    }
  }
}

} // namespace kdacheck::faults
