#include "dplr_chunk.hpp"

#include "decay.hpp"
#include "gate.hpp"
#include "inverse.hpp"
#include "lanes.hpp"
#include "product.hpp"
#include "rows.hpp"

#include <algorithm>

namespace kdacheck::cpu {
namespace {

/// a = beta k, b = alpha k, and beta k as the key that is written. G still holds log decays.
void kda_as_dplr(const Inputs& inputs, std::int64_t row, std::int64_t head, DplrChunk& chunk) {
  read_betas(inputs, row, head, chunk.n, chunk.beta, chunk.raw_beta);
  for (std::int64_t i = 0; i < chunk.n; ++i)
    for (std::int64_t c = 0; c < chunk.K; c += lane_count) {
      const std::int64_t at = i * chunk.K + c;
      const Lanes k = load(chunk.k + at), alpha = exp_of(load(chunk.G + at)), written = broadcast(chunk.beta[i]) * k;
      store(chunk.key + at, k);
      store(chunk.alpha + at, alpha);
      store(chunk.a + at, written);
      store(chunk.b + at, alpha * k);
      store(chunk.k + at, written);
    }
}

} // namespace

DplrChunk take_dplr_chunk(Arena& arena, const ChunkPlan& plan, const Inputs& inputs) {
  DplrChunk chunk;
  chunk.K = padded(inputs.shape.K);
  chunk.V = padded(inputs.shape.V);
  chunk.matrix = padded(plan.C);
  for (float** rows : {&chunk.q, &chunk.k, &chunk.a, &chunk.b, &chunk.G, &chunk.before, &chunk.bd, &chunk.qd, &chunk.ar, &chunk.kr})
    *rows = arena.floats(plan.C * chunk.K);
  if (inputs.options.rule == Rule::kda) {
    chunk.key = arena.floats(plan.C * chunk.K);
    chunk.alpha = arena.floats(plan.C * chunk.K);
  }
  chunk.v = arena.floats(plan.C * chunk.V);
  chunk.beta = arena.floats(plan.C);
  chunk.raw_beta = arena.floats(plan.C);
  chunk.q_inverse = arena.take<double>(plan.C);
  chunk.k_inverse = arena.take<double>(plan.C);
  if (plan.inverse()) chunk.state_operand = arena.floats(chunk.K * chunk.V);
  chunk.frame = take_score_frame(arena, plan.scores, chunk.matrix, chunk.K, chunk.G);
  return chunk;
}

DplrRecord take_dplr_record(Arena& arena, const ChunkPlan& plan, const Inputs& inputs) {
  const std::int64_t square = plan.C * padded(plan.C);
  DplrRecord record;
  record.state = arena.floats(padded(inputs.shape.K) * padded(inputs.shape.V));
  for (float** matrix : {&record.Aba, &record.Abk, &record.Aqa, &record.Aqk}) *matrix = arena.floats(square);
  if (plan.inverse()) record.T = arena.floats(square);
  record.w = arena.floats(plan.C * padded(inputs.shape.V));
  return record;
}

std::array<ScoreRows, score_kinds> score_rows(const DplrChunk& chunk) {
  return {ScoreRows{chunk.b, chunk.before, false}, ScoreRows{chunk.q, chunk.G, true}};
}

std::array<const float*, score_kinds> score_columns(const DplrChunk& chunk) { return {chunk.a, chunk.k}; }

void read_dplr_chunk(const ChunkPlan& plan, const Inputs& inputs, std::int64_t row, std::int64_t head, std::int64_t n, DplrChunk& chunk) {
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
  round_rows(plan.operands, chunk.v, n, chunk.V);
  read_log_decays(inputs, row, head, n, chunk.G);
  if (inputs.options.rule == Rule::kda) {
    kda_as_dplr(inputs, row, head, chunk);
  } else {
    read_rows(inputs[Input::a], s, row, head, n, chunk.a);
    read_rows(inputs[Input::b], s, row, head, n, chunk.b);
  }
  running_sums(chunk.G, n, chunk.K);
  sums_before(chunk.G, n, chunk.K, chunk.before);
  decay_from_start(chunk.b, chunk.before, n, chunk.K, chunk.bd);
  decay_from_start(chunk.q, chunk.G, n, chunk.K, chunk.qd);
  decay_to_end(chunk.a, chunk.G, n, chunk.K, chunk.ar);
  decay_to_end(chunk.k, chunk.G, n, chunk.K, chunk.kr);
  for (float* rows : {chunk.bd, chunk.qd, chunk.ar, chunk.kr}) round_rows(plan.operands, rows, n, chunk.K);
}

void solve_dplr_chunk(const ChunkPlan& plan, DplrChunk& chunk, DplrRecord& record, float* scratch) {
  const std::int64_t n = chunk.n, K = chunk.K, V = chunk.V, matrix = chunk.matrix;
  scores(chunk.frame, 2, score_rows(chunk), chunk.key ? 1 : 2, score_columns(chunk),
         {{{{record.Aba, record.Abk}, {record.Aqa, record.Aqk}}}});
  for (std::int64_t i = 0; i < n; ++i) {
    round_operand(plan.operands, record.Aqa + i * matrix, i + 1);
    if (chunk.key) continue;
    round_operand(plan.operands, record.Abk + i * matrix, i);
    round_operand(plan.operands, record.Aqk + i * matrix, i + 1);
  }
  if (plan.inverse()) invert_unit_lower(plan.operands, n, record.Aba, matrix, record.T);
  const float* state = rounded_copy(plan.operands, record.state, K * V, chunk.state_operand);
  if (chunk.key)
    std::copy(chunk.v, chunk.v + n * V, record.w);
  else
    std::fill(record.w, record.w + n * V, 0.0f);
  product(n, V, K, {chunk.bd, K, 1}, state, V, Into::subtract, record.w, V);
  if (!chunk.key) product(n, V, n, {record.Abk, matrix, 1}, chunk.v, V, Into::subtract, record.w, V, Part::strict_lower);
  apply_inverse(plan.operands, n, V, record.Aba, record.T, matrix, record.w, scratch);
  round_rows(plan.operands, record.w, n, V);
}

void dplr_output(const DplrChunk& chunk, const DplrRecord& record, float* o) {
  const float* state = chunk.state_operand ? chunk.state_operand : record.state;
  product(chunk.n, chunk.V, chunk.K, {chunk.qd, chunk.K, 1}, state, chunk.V, Into::assign, o, chunk.V);
  product(chunk.n, chunk.V, chunk.n, {record.Aqa, chunk.matrix, 1}, record.w, chunk.V, Into::add, o, chunk.V, Part::lower);
  if (chunk.key) return;
  product(chunk.n, chunk.V, chunk.n, {record.Aqk, chunk.matrix, 1}, chunk.v, chunk.V, Into::add, o, chunk.V, Part::lower);
}

void next_dplr_state(const ChunkPlan& plan, const DplrChunk& chunk, const DplrRecord& record, float* next) {
  decay_state(chunk.G + (chunk.n - 1) * chunk.K, chunk.K, chunk.V, record.state, next);
  product(chunk.K, chunk.V, chunk.n, {chunk.ar, 1, chunk.K}, record.w, chunk.V, Into::add, next, chunk.V);
  if (!chunk.key) product(chunk.K, chunk.V, chunk.n, {chunk.kr, 1, chunk.K}, chunk.v, chunk.V, Into::add, next, chunk.V);
  if (plan.state != Format::fp32) round_operand({plan.state, false}, next, chunk.K * chunk.V);
}

} // namespace kdacheck::cpu
