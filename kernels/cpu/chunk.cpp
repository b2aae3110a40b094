#include "chunk.hpp"

#include "gate.hpp"
#include "lanes.hpp"
#include "product.hpp"
#include "rows.hpp"

#include <algorithm>

namespace kdacheck::cpu {
namespace {

/// Log decays to their running sums, row by row.
void running_sums(float* g, std::int64_t n, std::int64_t width) {
  for (std::int64_t at = width; at < n * width; ++at) g[at] += g[at - width];
}

/// kd, qd = k, q e^G and kr = k e^{G_C - G}, rounded.
void decayed_operands(const ChunkPlan& plan, Chunk& chunk) {
  const float* last = chunk.G + (chunk.n - 1) * chunk.K;
  for (std::int64_t i = 0; i < chunk.n; ++i)
    for (std::int64_t c = 0; c < chunk.K; c += lane_count) {
      const std::int64_t at = i * chunk.K + c;
      const Lanes G = load(chunk.G + at), k = load(chunk.k + at), decay = exp_of(G);
      store(chunk.kd + at, k * decay);
      store(chunk.qd + at, load(chunk.q + at) * decay);
      store(chunk.kr + at, k * exp_of(load(last + c) - G));
    }
  for (float* rows : {chunk.kd, chunk.qd, chunk.kr}) round_rows(plan.operands, rows, chunk.n, chunk.K);
}

/// to[i, :] = beta_i from[i, :].
void scale_rows(const float* beta, std::int64_t n, std::int64_t width, const float* from, float* to) {
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < width; ++j) to[i * width + j] = beta[i] * from[i * width + j];
}

/// T = (I + L)^{-1} by forward substitution on the identity, then rounded.
void invert(const ChunkPlan& plan, const Chunk& chunk, const ChunkRecord& record) {
  const std::int64_t n = chunk.n, columns = padded(n);
  for (std::int64_t i = 0; i < n; ++i) {
    std::fill(record.T + i * chunk.matrix, record.T + i * chunk.matrix + columns, 0.0f);
    record.T[i * chunk.matrix + i] = 1;
  }
  solve_lower(n, columns, {record.L, chunk.matrix, 1}, record.T, chunk.matrix);
  for (std::int64_t i = 0; i < n; ++i) round_operand(plan.operands, record.T + i * chunk.matrix, i + 1);
}

/// rows := T rows, by solving or by the rounded inverse. `scratch` takes the rounded rows.
void apply_inverse(const ChunkPlan& plan, const Chunk& chunk, const ChunkRecord& record, std::int64_t width, float* rows, float* scratch) {
  if (!plan.inverse()) return solve_lower(chunk.n, width, {record.L, chunk.matrix, 1}, rows, width);
  round_rows(plan.operands, rows, chunk.n, width);
  std::copy(rows, rows + chunk.n * width, scratch);
  product(chunk.n, width, chunk.n, {record.T, chunk.matrix, 1}, scratch, width, Into::assign, rows, width, Part::lower);
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
  chunk.frame = {.width = chunk.K,
                 .matrix_row = chunk.matrix,
                 .G = chunk.G,
                 .left = arena.floats(score_left_floats(chunk.K)),
                 .panel = arena.floats(score_panel_floats(chunk.matrix, chunk.K)),
                 .turned = arena.floats(score_turned_floats(chunk.matrix, chunk.K)),
                 .format = plan.scores};
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
  if (plan.inverse()) {
    invert(plan, chunk, record);
    std::copy(record.state, record.state + K * V, chunk.state_operand);
    round_operand(plan.operands, chunk.state_operand, K * V);
  }
  const float* state = plan.inverse() ? chunk.state_operand : record.state;
  std::copy(chunk.v, chunk.v + n * V, record.residual);
  product(n, V, K, {chunk.kd, K, 1}, state, V, Into::subtract, record.residual, V);
  if (plan.wy) {
    scale_rows(chunk.beta, n, V, chunk.v, record.U);
    apply_inverse(plan, chunk, record, V, record.U, scratch);
    float* W = chunk.frame.panel;
    scale_rows(chunk.beta, n, K, chunk.kd, W);
    apply_inverse(plan, chunk, record, K, W, scratch);
    round_rows(plan.operands, W, n, K);
    product(n, V, K, {W, K, 1}, state, V, Into::subtract, record.U, V);
  } else {
    scale_rows(chunk.beta, n, V, record.residual, record.U);
    apply_inverse(plan, chunk, record, V, record.U, scratch);
  }
  round_rows(plan.operands, record.U, n, V);
}

void chunk_output(const Chunk& chunk, const ChunkRecord& record, float* o) {
  const float* state = chunk.state_operand ? chunk.state_operand : record.state;
  product(chunk.n, chunk.V, chunk.K, {chunk.qd, chunk.K, 1}, state, chunk.V, Into::assign, o, chunk.V);
  product(chunk.n, chunk.V, chunk.n, {record.Aqk, chunk.matrix, 1}, record.U, chunk.V, Into::add, o, chunk.V, Part::lower);
}

void next_state(const ChunkPlan& plan, const Chunk& chunk, const ChunkRecord& record, float* next) {
  const float* last = chunk.G + (chunk.n - 1) * chunk.K;
  for (std::int64_t c = 0; c < chunk.K; c += lane_count) {
    float decay[lane_count];
    store(decay, exp_of(load(last + c)));
    for (std::int64_t lane = 0; lane < lane_count; ++lane)
      for (std::int64_t j = 0; j < chunk.V; ++j) {
        const std::int64_t at = (c + lane) * chunk.V + j;
        next[at] = decay[lane] * record.state[at];
      }
  }
  product(chunk.K, chunk.V, chunk.n, {chunk.kr, 1, chunk.K}, record.U, chunk.V, Into::add, next, chunk.V);
  if (plan.state != Format::fp32) round_operand({plan.state, false}, next, chunk.K * chunk.V);
}

} // namespace kdacheck::cpu
