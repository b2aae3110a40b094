#include "chunk.hpp"

#include "decay.hpp"
#include "gate.hpp"
#include "inverse.hpp"
#include "lanes.hpp"
#include "product.hpp"
#include "rows.hpp"

#include <algorithm>

namespace kdacheck::cpu {
namespace {

/// kd, qd = k, q e^G and kr = k e^{G_C - G}, rounded.
void decayed_operands(const ChunkPlan& plan, Chunk& chunk) {
  decay_from_start(chunk.k, chunk.G, chunk.n, chunk.K, chunk.kd);
  decay_from_start(chunk.q, chunk.G, chunk.n, chunk.K, chunk.qd);
  decay_to_end(chunk.k, chunk.G, chunk.n, chunk.K, chunk.kr);
  for (float* rows : {chunk.kd, chunk.qd, chunk.kr}) round_rows(plan.operands, rows, chunk.n, chunk.K);
}

/// to[i, :] = beta_i from[i, :].
void scale_rows(const float* beta, std::int64_t n, std::int64_t width, const float* from, float* to) {
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < width; ++j) to[i * width + j] = beta[i] * from[i * width + j];
}

} // namespace

ChunkPlan plan_of(const Contract& contract) {
  return {.C = contract.chunk,
          .operands = {contract.operands, contract.truncate},
          .scores = {contract.scores, contract.truncate},
          .state = contract.state,
          .wy = contract.order == Order::wy};
}

Chunk take_chunk(Arena& arena, const ChunkPlan& plan, const Inputs& inputs) {
  Chunk chunk;
  chunk.C = plan.C;
  chunk.K = padded(inputs.shape.K);
  chunk.V = padded(inputs.shape.V);
  chunk.matrix = padded(plan.C);
  for (float** rows : {&chunk.q, &chunk.k, &chunk.G, &chunk.kd, &chunk.qd, &chunk.kr}) *rows = arena.floats(chunk.C * chunk.K);
  chunk.v = arena.floats(chunk.C * chunk.V);
  chunk.beta = arena.floats(chunk.C);
  chunk.raw_beta = arena.floats(chunk.C);
  chunk.q_inverse = arena.take<double>(chunk.C);
  chunk.k_inverse = arena.take<double>(chunk.C);
  if (plan.operands.format != Format::fp32) chunk.state_operand = arena.floats(chunk.K * chunk.V);
  chunk.frame = take_score_frame(arena, plan.scores, chunk.matrix, chunk.K, chunk.G);
  return chunk;
}

ChunkRecord take_record(Arena& arena, const ChunkPlan& plan, const Inputs& inputs) {
  const std::int64_t K = padded(inputs.shape.K), V = padded(inputs.shape.V), square = plan.C * padded(plan.C);
  ChunkRecord record;
  record.state = arena.floats(K * V);
  record.Akk = arena.floats(square);
  record.Aqk = arena.floats(square);
  record.L = arena.floats(square);
  if (plan.inverse()) record.T = arena.floats(square);
  record.residual = arena.floats(plan.C * V);
  record.U = arena.floats(plan.C * V);
  return record;
}

void read_chunk(const ChunkPlan& plan, const Inputs& inputs, std::int64_t row, std::int64_t head, std::int64_t n, Chunk& chunk) {
  const Shape& s = inputs.shape;
  const std::int64_t shared = head / (s.HV / s.H);
  chunk.n = chunk.frame.n = n;
  read_rows(inputs[Input::q], s, row, shared, n, chunk.q);
  read_rows(inputs[Input::k], s, row, shared, n, chunk.k);
  if (inputs.options.l2norm) {
    normalise_rows(chunk.q, n, s.K, chunk.q_inverse);
    normalise_rows(chunk.k, n, s.K, chunk.k_inverse);
  }
  for (std::int64_t at = 0; at < n * chunk.K; ++at) chunk.q[at] *= inputs.options.scale;
  read_rows(inputs[Input::v], s, row, head, n, chunk.v);
  read_log_decays(inputs, row, head, n, chunk.G);
  running_sums(chunk.G, n, chunk.K);
  read_betas(inputs, row, head, n, chunk.beta, chunk.raw_beta);
  decayed_operands(plan, chunk);
}

void solve_chunk(const ChunkPlan& plan, Chunk& chunk, ChunkRecord& record, float* scratch) {
  const std::int64_t n = chunk.n, K = chunk.K, V = chunk.V;
  scores(chunk.frame, 2, {ScoreRows{chunk.k, chunk.G, false}, ScoreRows{chunk.q, chunk.G, true}}, 1, {chunk.k},
         {{{{record.Akk}, {record.Aqk}}}});
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t at = i * chunk.matrix;
    for (std::int64_t j = 0; j < i; ++j) record.L[at + j] = chunk.beta[i] * record.Akk[at + j];
    round_operand(plan.operands, record.Aqk + at, i + 1);
  }
  if (plan.inverse()) invert_unit_lower(plan.operands, n, record.L, chunk.matrix, record.T);
  const float* state = rounded_copy(plan.operands, record.state, K * V, chunk.state_operand);
  std::copy(chunk.v, chunk.v + n * V, record.residual);
  product(n, V, K, {chunk.kd, K, 1}, state, V, Into::subtract, record.residual, V);
  if (plan.wy) {
    scale_rows(chunk.beta, n, V, chunk.v, record.U);
    apply_inverse(plan.operands, n, V, record.L, record.T, chunk.matrix, record.U, scratch);
    float* W = chunk.frame.panel;
    scale_rows(chunk.beta, n, K, chunk.kd, W);
    apply_inverse(plan.operands, n, K, record.L, record.T, chunk.matrix, W, scratch);
    round_rows(plan.operands, W, n, K);
    product(n, V, K, {W, K, 1}, state, V, Into::subtract, record.U, V);
  } else {
    scale_rows(chunk.beta, n, V, record.residual, record.U);
    apply_inverse(plan.operands, n, V, record.L, record.T, chunk.matrix, record.U, scratch);
  }
  round_rows(plan.operands, record.U, n, V);
}

void chunk_output(const Chunk& chunk, const ChunkRecord& record, float* o) {
  const float* state = chunk.state_operand ? chunk.state_operand : record.state;
  product(chunk.n, chunk.V, chunk.K, {chunk.qd, chunk.K, 1}, state, chunk.V, Into::assign, o, chunk.V);
  product(chunk.n, chunk.V, chunk.n, {record.Aqk, chunk.matrix, 1}, record.U, chunk.V, Into::add, o, chunk.V, Part::lower);
}

void next_state(const ChunkPlan& plan, const Chunk& chunk, const ChunkRecord& record, float* next) {
  decay_state(chunk.G + (chunk.n - 1) * chunk.K, chunk.K, chunk.V, record.state, next);
  product(chunk.K, chunk.V, chunk.n, {chunk.kr, 1, chunk.K}, record.U, chunk.V, Into::add, next, chunk.V);
  if (plan.state != Format::fp32) round_operand({plan.state, false}, next, chunk.K * chunk.V);
}

} // namespace kdacheck::cpu
