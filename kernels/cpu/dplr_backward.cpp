// Reverse mode of the general chunk algebra (forward: dplr_chunk.hpp). With R = bd S + Abk v, so that w = -(I + Aba)^{-1} R:
//
//   dw = Aqa^T dO + ar dS'      Y = -(I + Aba)^{-T} dw      dv = Aqk^T dO + kr dS' + Abk^T Y
//   dAba = strict_lower(Y w^T)  dAbk = strict_lower(Y v^T)  dAqa = lower(dO w^T)  dAqk = lower(dO v^T)
//   dbd = Y S^T   dqd = dO S^T  dar = w dS'^T  dkr = v dS'^T
//   dS = Diag(e^{G_C}) dS' + qd^T dO + bd^T Y
//   q decays with G_i, b with G_{i-1}: dG_i = q dq - a da - k dk, dG_{i-1} += b db, the chunk's end on top.
//
// KDA through it has a = k = beta key and u = w + v = (I + Aba)^{-1} (v - bd S): a takes the gradients of both with u, k
// none, and dv = -Y. Then
//   dkey = beta da + alpha db      dbeta = key da      d log alpha = alpha key db besides.

#include "dplr_backward.hpp"

#include "accept.hpp"
#include "decay.hpp"
#include "gradient_rows.hpp"
#include "inverse.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "product.hpp"
#include "reverse.hpp"
#include "rows.hpp"

#include <algorithm>
#include <utility>

namespace kdacheck::cpu {
namespace {

/// Buffers of one step back; rows [C,K] or [C,V], matrices [C,matrix].
struct Adjoint {
  float *d_o = nullptr, *Y = nullptr, *v = nullptr, *scratch = nullptr; ///< [C,V]
  float *dAba = nullptr, *dAbk = nullptr, *dAqa = nullptr, *dAqk = nullptr;
  float *q = nullptr, *k = nullptr, *a = nullptr, *b = nullptr, *g = nullptr;
  float *near_a = nullptr, *near_k = nullptr; ///< [C] dAba and dAbk of (i, i - 1): the one pair of b without decay
  float *end_a = nullptr, *end_k = nullptr;   ///< [K] what the last token's a and k get through the state: without decay
  float* dbeta = nullptr;
  float *dS = nullptr, *dS_operand = nullptr, *turned = nullptr;
};

struct Slice {
  DplrChunk chunk;
  Adjoint adjoint;
  SharedGradients shared;
  Walk walk;
};

Adjoint take_adjoint(Arena& arena, const ChunkPlan& plan, std::int64_t K, std::int64_t V) {
  const std::int64_t matrix = padded(plan.C);
  Adjoint d;
  for (float** rows : {&d.d_o, &d.Y, &d.v, &d.scratch}) *rows = arena.floats(plan.C * V);
  for (float** square : {&d.dAba, &d.dAbk, &d.dAqa, &d.dAqk}) *square = arena.floats(plan.C * matrix);
  for (float** rows : {&d.q, &d.k, &d.a, &d.b, &d.g}) *rows = arena.floats(plan.C * K);
  for (float** row : {&d.end_a, &d.end_k}) *row = arena.floats(K);
  for (float** row : {&d.near_a, &d.near_k, &d.dbeta}) *row = arena.floats(plan.C);
  d.dS = arena.floats(K * V);
  if (plan.inverse()) d.dS_operand = arena.floats(K * V);
  d.turned = arena.floats(V * std::max(K, matrix));
  return d;
}

Slice take_slice(Arena& arena, const ChunkPlan& plan, const Inputs& inputs) {
  const std::int64_t K = padded(inputs.shape.K), V = padded(inputs.shape.V), longest = longest_sequence(inputs);
  Arena measure;
  take_dplr_record(measure, plan, inputs);
  Slice slice;
  slice.chunk = take_dplr_chunk(arena, plan, inputs);
  slice.adjoint = take_adjoint(arena, plan, K, V);
  slice.shared = take_shared_gradients(arena, inputs, longest);
  slice.walk = take_walk(arena, longest, plan.C, K * V, measure.used);
  return slice;
}

/// Y, rounded, and d v.
void solve_adjoint(const ChunkPlan& plan, const DplrChunk& chunk, const DplrRecord& record, const float* dS, Adjoint& d) {
  const std::int64_t n = chunk.n, K = chunk.K, V = chunk.V, matrix = chunk.matrix;
  std::fill(d.Y, d.Y + n * V, 0.0f);
  product(n, V, n, {record.Aqa, 1, matrix}, d.d_o, V, Into::subtract, d.Y, V, Part::upper);
  product(n, V, K, {chunk.ar, K, 1}, dS, V, Into::subtract, d.Y, V);
  apply_inverse_transposed(plan.operands, n, V, record.Aba, record.T, matrix, d.Y, d.scratch);
  if (chunk.key)
    for (std::int64_t at = 0; at < n * V; at += lane_count) store(d.v + at, -load(d.Y + at));
  round_rows(plan.operands, d.Y, n, V);
  if (chunk.key) return;
  product(n, V, n, {record.Aqk, 1, matrix}, d.d_o, V, Into::assign, d.v, V, Part::upper);
  product(n, V, K, {chunk.kr, K, 1}, dS, V, Into::add, d.v, V);
  product(n, V, n, {record.Abk, 1, matrix}, d.Y, V, Into::add, d.v, V, Part::strict_upper);
}

/// The four score gradients, rounded as operands of the scores; pairs (i, i - 1) of b are taken out.
void score_adjoints(const ChunkPlan& plan, const DplrChunk& chunk, const DplrRecord& record, Adjoint& d) {
  const std::int64_t n = chunk.n, V = chunk.V, matrix = chunk.matrix;
  const auto outer = [&](const float* rows, float* into) {
    for (std::int64_t block = 0; block < n; block += score_block)
      product(std::min(score_block, n - block), block + score_block, V, {rows + block * V, V, 1}, d.turned, matrix, Into::assign,
              into + block * matrix, matrix);
  };
  transpose(n, V, record.w, V, d.turned, matrix);
  outer(d.Y, d.dAba);
  outer(d.d_o, d.dAqa);
  if (chunk.key)
    std::fill(d.turned, d.turned + V * matrix, 0.0f);
  else
    transpose(n, V, chunk.v, V, d.turned, matrix);
  outer(d.Y, d.dAbk);
  outer(d.d_o, d.dAqk);
  for (std::int64_t i = 0; i < n; ++i) {
    for (float* square : {d.dAba, d.dAbk}) round_operand(plan.scores, square + i * matrix, i);
    for (float* square : {d.dAqa, d.dAqk}) round_operand(plan.scores, square + i * matrix, i + 1);
    if (i == 0) continue;
    d.near_a[i] = std::exchange(d.dAba[i * matrix + i - 1], 0.0f);
    d.near_k[i] = std::exchange(d.dAbk[i * matrix + i - 1], 0.0f);
  }
}

/// What flows through the states at both ends: q, b, a, k are set, and the chunk's end in the last row of g.
void state_adjoints(const DplrChunk& chunk, const DplrRecord& record, const float* state, const float* dS, Adjoint& d) {
  const std::int64_t n = chunk.n, K = chunk.K, V = chunk.V;
  transpose(K, V, state, V, d.turned, K);
  product(n, K, V, {d.d_o, V, 1}, d.turned, K, Into::assign, d.q, K);
  product(n, K, V, {d.Y, V, 1}, d.turned, K, Into::assign, d.b, K);
  transpose(K, V, dS, V, d.turned, K);
  product(n, K, V, {record.w, V, 1}, d.turned, K, Into::assign, d.a, K);
  if (chunk.key)
    std::fill(d.k, d.k + n * K, 0.0f);
  else
    product(n, K, V, {chunk.v, V, 1}, d.turned, K, Into::assign, d.k, K);
  decay_from_start(d.q, chunk.G, n, K, d.q);
  decay_from_start(d.b, chunk.before, n, K, d.b);
  // As for KDA: what the state keeps comes last, and waits in the first row.
  float *whole = d.g, *end = d.g + (n - 1) * K;
  for (std::int64_t c = 0; c < K; ++c) whole[c] = dot(record.state + c * V, d.dS + c * V, V);
  decay_from_start(whole, chunk.G + (n - 1) * K, 1, K, whole);
  if (n > 1) std::fill(end, end + K, 0.0f);
  const float* columns[] = {chunk.a, chunk.k};
  float* gradients[] = {d.a, d.k};
  float* kept[] = {d.end_a, d.end_k};
  for (int kind = 0; kind < 2; ++kind) {
    decay_to_end(gradients[kind], chunk.G, n, K, gradients[kind]);
    float* last = gradients[kind] + (n - 1) * K;
    std::copy(last, last + K, kept[kind]);
    std::fill(last, last + K, 0.0f);
  }
  // What a and k add may nearly cancel within a token: together first, then into the sum.
  for (std::int64_t at = 0; at < (n - 1) * K; at += lane_count)
    store(end + at % K, load(end + at % K) +
                            multiply_add(load(columns[0] + at), load(gradients[0] + at), load(columns[1] + at) * load(gradients[1] + at)));
  if (n > 1)
    for (std::int64_t c = 0; c < K; ++c) end[c] += whole[c];
}

/// dG to d log decay in place, then the pairs without decay: (i, i) of q, (i, i - 1) of b.
void finish_rows(const DplrChunk& chunk, Adjoint& d) {
  const std::int64_t n = chunk.n, K = chunk.K;
  for (std::int64_t i = n - 1; i >= 0; --i)
    for (std::int64_t c = 0; c < K; c += lane_count) {
      const std::int64_t at = i * K + c;
      const Lanes q = load(chunk.q + at), k = load(chunk.k + at), a = load(chunk.a + at);
      Lanes own = q * load(d.q + at) - (a * load(d.a + at) + k * load(d.k + at));
      if (i + 1 < n) own += load(chunk.b + at + K) * load(d.b + at + K);
      store(d.g + at, own + load(d.g + (i + 1 < n ? at + K : at)));
      const Lanes same_a = broadcast(d.dAqa[i * chunk.matrix + i]), same_k = broadcast(d.dAqk[i * chunk.matrix + i]);
      store(d.q + at, multiply_add(same_a, a, multiply_add(same_k, k, load(d.q + at))));
      store(d.a + at, multiply_add(same_a, q, load(d.a + at)));
      store(d.k + at, multiply_add(same_k, q, load(d.k + at)));
    }
  for (std::int64_t i = 1; i < n; ++i)
    for (std::int64_t at = i * K; at < (i + 1) * K; at += lane_count) {
      const Lanes near_a = broadcast(d.near_a[i]), near_k = broadcast(d.near_k[i]), b = load(chunk.b + at);
      store(d.b + at, multiply_add(near_a, load(chunk.a + at - K), multiply_add(near_k, load(chunk.k + at - K), load(d.b + at))));
      store(d.a + at - K, multiply_add(near_a, b, load(d.a + at - K)));
      store(d.k + at - K, multiply_add(near_k, b, load(d.k + at - K)));
    }
  const std::int64_t last = (n - 1) * K;
  for (std::int64_t c = 0; c < K; ++c) {
    d.a[last + c] += d.end_a[c];
    d.k[last + c] += d.end_k[c];
  }
}

/// d k (in d.k), d beta and d log decay of KDA from those of a, b and the key that is written.
void kda_from_dplr(const DplrChunk& chunk, Adjoint& d) {
  for (std::int64_t i = 0; i < chunk.n; ++i) {
    Lanes beta_sum{};
    for (std::int64_t c = 0; c < chunk.K; c += lane_count) {
      const std::int64_t at = i * chunk.K + c;
      const Lanes written = load(d.a + at) + load(d.k + at), k = load(chunk.key + at), alpha = load(chunk.alpha + at), b = load(d.b + at);
      beta_sum = multiply_add(written, k, beta_sum);
      store(d.k + at, multiply_add(broadcast(chunk.beta[i]), written, alpha * b));
      store(d.g + at, multiply_add(alpha * k, b, load(d.g + at)));
    }
    d.dbeta[i] = sum(beta_sum);
  }
}

void previous_state_adjoint(const DplrChunk& chunk, Adjoint& d) {
  const std::int64_t n = chunk.n, K = chunk.K, V = chunk.V;
  decay_state(chunk.G + (n - 1) * K, K, V, d.dS, d.dS);
  product(K, V, n, {chunk.qd, 1, K}, d.d_o, V, Into::add, d.dS, V);
  product(K, V, n, {chunk.bd, 1, K}, d.Y, V, Into::add, d.dS, V);
}

} // namespace

std::size_t dplr_backward_bytes(const Contract& contract, const Inputs& inputs) {
  Arena shared, slice;
  take_parameter_partials(shared, inputs);
  take_slice(slice, plan_of(contract), inputs);
  return shared.used + slice.used * static_cast<std::size_t>(worker_count(inputs.N() * inputs.shape.H));
}

void dplr_backward(const Contract& contract, const Inputs& inputs, const Cotangents& cotangents, const GradientOutputs& gradients,
                   std::span<std::byte> workspace) {
  accept(contract, inputs, cotangents, gradients);
  const Shape& s = inputs.shape;
  const ChunkPlan plan = plan_of(contract);
  const std::int64_t K = padded(s.K), V = padded(s.V);
  const bool kda = inputs.options.rule == Rule::kda;
  Arena front{workspace.data()}, measure;
  const ParameterPartials partials = take_parameter_partials(front, inputs);
  take_slice(measure, plan, inputs);
  const double operations = 18.0 * static_cast<double>(s.B * s.T * s.HV) * static_cast<double>(s.K * (s.V + plan.C));
  for_each_task(inputs.N() * s.H, workspace.subspan(front.used), measure.used, operations, [&](std::int64_t index, std::byte* memory) {
    const std::int64_t n = index / s.H, shared_head = index % s.H, group = s.HV / s.H;
    Arena arena{memory};
    Slice slice = take_slice(arena, plan, inputs);
    DplrChunk& chunk = slice.chunk;
    Adjoint& d = slice.adjoint;
    const Sequence sequence = sequence_of(inputs, n);
    std::fill(slice.shared.q, slice.shared.q + sequence.length * K, 0.0f);
    std::fill(slice.shared.k, slice.shared.k + sequence.length * K, 0.0f);
    for (std::int64_t head = shared_head * group; head < (shared_head + 1) * group; ++head) {
      const GateParameterSums sums = clear_sums(partials, inputs, n, head);
      read_state(inputs[Input::initial_state], contract.state_v_first, n, head, s.K, s.V, slice.walk.checkpoints);
      read_state(cotangents.d_final_state, contract.state_v_first, n, head, s.K, s.V, d.dS);
      const auto advance = [&](std::int64_t t, std::int64_t rows, DplrRecord& record, float* next) {
        read_dplr_chunk(plan, inputs, sequence.first + t, head, rows, chunk);
        solve_dplr_chunk(plan, chunk, record, d.scratch);
        if (next) next_dplr_state(plan, chunk, record, next);
      };
      const auto retreat = [&](std::int64_t t, std::int64_t rows, DplrRecord& record) {
        const std::int64_t row = sequence.first + t;
        read_dplr_chunk(plan, inputs, row, head, rows, chunk);
        read_output_cotangent(cotangents, inputs, row, head, rows, d.d_o);
        round_rows(plan.operands, d.d_o, rows, V);
        const float* dS = rounded_copy(plan.operands, d.dS, K * V, d.dS_operand);
        const float* state = rounded_copy(plan.operands, record.state, K * V, chunk.state_operand);
        solve_adjoint(plan, chunk, record, dS, d);
        write_gradient(gradients, Input::v, inputs, row, head, rows, d.v);
        score_adjoints(plan, chunk, record, d);
        state_adjoints(chunk, record, state, dS, d);
        scores_backward(chunk.frame, 2, score_rows(chunk), kda ? 1 : 2, score_columns(chunk), {{{{d.dAba, d.dAbk}, {d.dAqa, d.dAqk}}}},
                        {d.b, d.q}, {d.a, d.k});
        finish_rows(chunk, d);
        if (kda) {
          kda_from_dplr(chunk, d);
          write_beta_gradient(inputs, gradients, row, head, rows, d.dbeta, chunk.raw_beta);
        } else {
          write_gradient(gradients, Input::a, inputs, row, head, rows, d.a);
          write_gradient(gradients, Input::b, inputs, row, head, rows, d.b);
        }
        for (std::int64_t at = 0; at < rows * K; ++at) {
          slice.shared.q[t * K + at] += inputs.options.scale * d.q[at];
          slice.shared.k[t * K + at] += d.k[at];
        }
        write_gate_gradient(inputs, gradients, row, head, rows, d.g, d.end_k, sums);
        previous_state_adjoint(chunk, d);
      };
      walk_back(
          slice.walk, sequence.length, [&](Arena& place) { return take_dplr_record(place, plan, inputs); }, advance, retreat);
      write_state(gradients[Input::initial_state], contract.state_v_first, n, head, s.K, s.V, d.dS);
    }
    write_shared(slice.shared, inputs, gradients, sequence.first, shared_head, sequence.length, d.end_k);
  });
  write_parameters(partials, inputs, gradients);
}

} // namespace kdacheck::cpu
