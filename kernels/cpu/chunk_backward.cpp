// Reverse mode of the chunk algebra, from the last chunk to the first. With Z = beta (V - kd S) and U = T Z:
//
//   dU = Aqk^T dO + kr dS'      dZ = T^T dU       dV = beta dZ       dbeta_i = dZ_i . (V - kd S - Akk U)_i
//   dAkk = -diag(beta) strict_lower(dZ U^T)       dAqk = lower(dO U^T)
//   dqd = dO S^T    dkd = -(beta dZ) S^T    dkr = U dS'^T    dS = Diag(e^{G_C}) dS' + qd^T dO - kd^T (beta dZ)
//   dG_i = q dq + k (dk as a row - dk as a column), the chunk's end on top; dg is its sum over the tokens from i on.
//
// Pairs i = j have no decay: they enter dq and dk after dG is formed, never added and taken away again. One task per
// (sequence, q/k head), which takes the value heads of its group in order.

#include "chunk_backward.hpp"

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

namespace kdacheck::cpu {
namespace {

/// Buffers of one step back; rows [C,K] or [C,V], matrices [C,matrix].
struct Adjoint {
  float *d_o = nullptr, *dU = nullptr, *weighted = nullptr, *scratch = nullptr; ///< [C,V]; weighted: beta dZ
  float *dAkk = nullptr, *dAqk = nullptr;
  float *row_q = nullptr, *row_k = nullptr, *column_k = nullptr, *end_k = nullptr; ///< d of q, k as rows, k as a column; last row's kr
  float *dG = nullptr, *dbeta = nullptr;
  float *dS = nullptr, *dS_operand = nullptr, *turned = nullptr; ///< [K,V]; turned: [V,K], or U^T
};

struct Slice {
  Chunk chunk;
  Adjoint adjoint;
  SharedGradients shared;
  Walk walk;
  float* scratch = nullptr;
};

Adjoint take_adjoint(Arena& arena, const ChunkPlan& plan, std::int64_t K, std::int64_t V) {
  const std::int64_t matrix = padded(plan.C);
  Adjoint adjoint;
  for (float** rows : {&adjoint.d_o, &adjoint.dU, &adjoint.weighted, &adjoint.scratch}) *rows = arena.floats(plan.C * V);
  for (float** square : {&adjoint.dAkk, &adjoint.dAqk}) *square = arena.floats(plan.C * matrix);
  for (float** rows : {&adjoint.row_q, &adjoint.row_k, &adjoint.column_k, &adjoint.dG}) *rows = arena.floats(plan.C * K);
  adjoint.end_k = arena.floats(K);
  adjoint.dbeta = arena.floats(plan.C);
  adjoint.dS = arena.floats(K * V);
  if (plan.inverse()) adjoint.dS_operand = arena.floats(K * V);
  adjoint.turned = arena.floats(V * std::max(K, matrix));
  return adjoint;
}

Slice take_slice(Arena& arena, const ChunkPlan& plan, const Inputs& inputs) {
  const std::int64_t K = padded(inputs.shape.K), V = padded(inputs.shape.V), longest = longest_sequence(inputs);
  Arena measure;
  take_record(measure, plan, inputs);
  Slice slice;
  slice.chunk = take_chunk(arena, plan, inputs);
  slice.adjoint = take_adjoint(arena, plan, K, V);
  slice.shared = take_shared_gradients(arena, inputs, longest);
  slice.walk = take_walk(arena, longest, plan.C, K * V, measure.used);
  slice.scratch = arena.floats(plan.C * std::max(K, V));
  return slice;
}

/// dU, dZ (in dU), d beta, and the rounded beta dZ.
void solve_adjoint(const ChunkPlan& plan, const Chunk& chunk, const ChunkRecord& record, const float* dS, Adjoint& d) {
  const std::int64_t n = chunk.n, K = chunk.K, V = chunk.V, matrix = chunk.matrix;
  product(n, V, n, {record.Aqk, 1, matrix}, d.d_o, V, Into::assign, d.dU, V, Part::upper);
  product(n, V, K, {chunk.kr, K, 1}, dS, V, Into::add, d.dU, V);
  apply_inverse_transposed(plan.operands, n, V, record.L, record.T, matrix, d.dU, d.scratch);
  std::copy(record.residual, record.residual + n * V, d.scratch);
  product(n, V, n, {record.Akk, matrix, 1}, record.U, V, Into::subtract, d.scratch, V, Part::strict_lower);
  for (std::int64_t i = 0; i < n; ++i) {
    d.dbeta[i] = dot(d.dU + i * V, d.scratch + i * V, V);
    for (std::int64_t j = i * V; j < (i + 1) * V; j += lane_count) store(d.weighted + j, broadcast(chunk.beta[i]) * load(d.dU + j));
  }
}

/// dAkk and dAqk, rounded as operands of the scores.
void score_adjoints(const ChunkPlan& plan, const Chunk& chunk, const ChunkRecord& record, Adjoint& d) {
  const std::int64_t n = chunk.n, V = chunk.V, matrix = chunk.matrix;
  transpose(n, V, record.U, V, d.turned, matrix);
  for (std::int64_t block = 0; block < n; block += score_block) {
    const std::int64_t count = std::min(score_block, n - block), columns = block + score_block;
    product(count, columns, V, {d.dU + block * V, V, 1}, d.turned, matrix, Into::assign, d.dAkk + block * matrix, matrix);
    product(count, columns, V, {d.d_o + block * V, V, 1}, d.turned, matrix, Into::assign, d.dAqk + block * matrix, matrix);
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < i; ++j) d.dAkk[i * matrix + j] *= -chunk.beta[i];
    round_operand(plan.scores, d.dAkk + i * matrix, i);
    round_operand(plan.scores, d.dAqk + i * matrix, i + 1);
  }
}

/// What flows through the states at both ends of the chunk: row_q, row_k, column_k are set, dG of the last token too.
void state_adjoints(const Chunk& chunk, const ChunkRecord& record, const float* state, const float* dS, Adjoint& d) {
  const std::int64_t n = chunk.n, K = chunk.K, V = chunk.V;
  transpose(K, V, state, V, d.turned, K);
  product(n, K, V, {d.d_o, V, 1}, d.turned, K, Into::assign, d.row_q, K);
  std::fill(d.row_k, d.row_k + n * K, 0.0f);
  product(n, K, V, {d.weighted, V, 1}, d.turned, K, Into::subtract, d.row_k, K);
  transpose(K, V, dS, V, d.turned, K);
  product(n, K, V, {record.U, V, 1}, d.turned, K, Into::assign, d.column_k, K);
  decay_from_start(d.row_q, chunk.G, n, K, d.row_q);
  decay_from_start(d.row_k, chunk.G, n, K, d.row_k);
  decay_to_end(d.column_k, chunk.G, n, K, d.column_k);
  // The last token's key does not decay on its way to the end: kept aside from dG.
  float* last = d.column_k + (n - 1) * K;
  std::copy(last, last + K, d.end_k);
  std::fill(last, last + K, 0.0f);
  // What the state keeps may be far larger than what each token adds: it comes last, so that it rounds the sum once and
  // not n times in the same direction. The first row of dG holds it until then.
  float *kept = d.dG, *end = d.dG + (n - 1) * K;
  for (std::int64_t c = 0; c < K; ++c) kept[c] = dot(record.state + c * V, d.dS + c * V, V);
  decay_from_start(kept, chunk.G + (n - 1) * K, 1, K, kept);
  if (n == 1) return;
  std::fill(end, end + K, 0.0f);
  for (std::int64_t i = 0; i + 1 < n; ++i)
    for (std::int64_t c = 0; c < K; c += lane_count)
      store(end + c, multiply_add(load(chunk.k + i * K + c), load(d.column_k + i * K + c), load(end + c)));
  for (std::int64_t c = 0; c < K; ++c) end[c] += kept[c];
}

/// dG to d log decay in place, and the pairs i = j into row_q and column_k.
void finish_rows(const Chunk& chunk, Adjoint& d) {
  const std::int64_t n = chunk.n, K = chunk.K;
  for (std::int64_t i = n - 1; i >= 0; --i)
    for (std::int64_t c = 0; c < K; c += lane_count) {
      const std::int64_t at = i * K + c;
      const Lanes q = load(chunk.q + at), k = load(chunk.k + at), row_q = load(d.row_q + at), column_k = load(d.column_k + at);
      const Lanes own = q * row_q + k * (load(d.row_k + at) - column_k);
      store(d.dG + at, own + load(d.dG + (i + 1 < n ? at + K : at)));
      const Lanes same = broadcast(d.dAqk[i * chunk.matrix + i]);
      store(d.row_q + at, multiply_add(same, k, row_q));
      store(d.column_k + at, multiply_add(same, q, column_k));
    }
  float* last = d.column_k + (n - 1) * K;
  for (std::int64_t c = 0; c < K; ++c) last[c] += d.end_k[c];
}

/// dS of the state before the chunk from that after it.
void previous_state_adjoint(const Chunk& chunk, Adjoint& d) {
  const std::int64_t n = chunk.n, K = chunk.K, V = chunk.V;
  decay_state(chunk.G + (n - 1) * K, K, V, d.dS, d.dS);
  product(K, V, n, {chunk.qd, 1, K}, d.d_o, V, Into::add, d.dS, V);
  product(K, V, n, {chunk.kd, 1, K}, d.weighted, V, Into::subtract, d.dS, V);
}

} // namespace

std::size_t chunk_backward_bytes(const Contract& contract, const Inputs& inputs) {
  Arena shared, slice;
  take_parameter_partials(shared, inputs);
  take_slice(slice, plan_of(contract), inputs);
  return shared.used + slice.used * static_cast<std::size_t>(worker_count(inputs.N() * inputs.shape.H));
}

void chunk_backward(const Contract& contract, const Inputs& inputs, const Cotangents& cotangents, const GradientOutputs& gradients,
                    std::span<std::byte> workspace) {
  accept(contract, inputs, cotangents, gradients);
  const Shape& s = inputs.shape;
  const ChunkPlan plan = plan_of(contract);
  const std::int64_t K = padded(s.K), V = padded(s.V);
  Arena front{workspace.data()}, measure;
  const ParameterPartials partials = take_parameter_partials(front, inputs);
  take_slice(measure, plan, inputs);
  const double operations = 12.0 * static_cast<double>(s.B * s.T * s.HV) * static_cast<double>(s.K * (s.V + plan.C));
  for_each_task(inputs.N() * s.H, workspace.subspan(front.used), measure.used, operations, [&](std::int64_t index, std::byte* memory) {
    const std::int64_t n = index / s.H, shared_head = index % s.H, group = s.HV / s.H;
    Arena arena{memory};
    Slice slice = take_slice(arena, plan, inputs);
    Chunk& chunk = slice.chunk;
    Adjoint& d = slice.adjoint;
    const Sequence sequence = sequence_of(inputs, n);
    std::fill(slice.shared.q, slice.shared.q + sequence.length * K, 0.0f);
    std::fill(slice.shared.k, slice.shared.k + sequence.length * K, 0.0f);
    for (std::int64_t head = shared_head * group; head < (shared_head + 1) * group; ++head) {
      const GateParameterSums sums = clear_sums(partials, inputs, n, head);
      read_state(inputs[Input::initial_state], contract.state_v_first, n, head, s.K, s.V, slice.walk.checkpoints);
      read_state(cotangents.d_final_state, contract.state_v_first, n, head, s.K, s.V, d.dS);
      const auto advance = [&](std::int64_t t, std::int64_t rows, ChunkRecord& record, float* next) {
        read_chunk(plan, inputs, sequence.first + t, head, rows, chunk);
        solve_chunk(plan, chunk, record, slice.scratch);
        if (next) next_state(plan, chunk, record, next);
      };
      const auto retreat = [&](std::int64_t t, std::int64_t rows, ChunkRecord& record) {
        const std::int64_t row = sequence.first + t;
        read_chunk(plan, inputs, row, head, rows, chunk);
        read_output_cotangent(cotangents, inputs, row, head, rows, d.d_o);
        round_rows(plan.operands, d.d_o, rows, V);
        const float* dS = rounded_copy(plan.operands, d.dS, K * V, d.dS_operand);
        const float* state = rounded_copy(plan.operands, record.state, K * V, chunk.state_operand);
        solve_adjoint(plan, chunk, record, dS, d);
        write_beta_gradient(inputs, gradients, row, head, rows, d.dbeta, chunk.raw_beta);
        write_gradient(gradients, Input::v, inputs, row, head, rows, d.weighted);
        for (float* rounded : {d.dU, d.weighted}) round_rows(plan.operands, rounded, rows, V);
        score_adjoints(plan, chunk, record, d);
        state_adjoints(chunk, record, state, dS, d);
        scores_backward(chunk.frame, 2, {ScoreRows{chunk.k, chunk.G, false}, ScoreRows{chunk.q, chunk.G, true}}, 1, {chunk.k},
                        {{{{d.dAkk}, {d.dAqk}}}}, {d.row_k, d.row_q}, {d.column_k});
        finish_rows(chunk, d);
        for (std::int64_t at = 0; at < rows * K; ++at) {
          slice.shared.q[t * K + at] += inputs.options.scale * d.row_q[at];
          slice.shared.k[t * K + at] += d.row_k[at] + d.column_k[at];
        }
        write_gate_gradient(inputs, gradients, row, head, rows, d.dG, d.end_k, sums);
        previous_state_adjoint(chunk, d);
      };
      walk_back(
          slice.walk, sequence.length, [&](Arena& place) { return take_record(place, plan, inputs); }, advance, retreat);
      write_state(gradients[Input::initial_state], contract.state_v_first, n, head, s.K, s.V, d.dS);
    }
    write_shared(slice.shared, inputs, gradients, sequence.first, shared_head, sequence.length, d.end_k);
  });
  write_parameters(partials, inputs, gradients);
}

} // namespace kdacheck::cpu
