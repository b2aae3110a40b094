// Reverse mode of one chunk, written to be read. With S the state before the chunk and dS' the gradient of the one after:
//   dU = Aqk^T dO + kr dS'     dZ = T^T dU     dV = beta dZ     dbeta_i = dZ_i . (V - kd S - Akk U)_i
//   dAkk = -beta strict_tril(dZ U^T)           dAqk = tril(dO U^T)
//   dS = e^{G_C} dS' + qd^T dO - kd^T (beta dZ)
// Whatever carries e^{G_i} adds x dx to dG_i, whatever carries e^{-G_j} takes it away, what carries e^{G_C} adds to the last
// row; pairs i = j carry e^0 and never enter. dg is the reverse cumulative sum of dG.

#include "reverse_with_faults.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck::faults {
HeadReverse::HeadReverse(HeadRun& forward, Fault planted) : run(forward), fault(planted) {
  const auto C = static_cast<std::size_t>(run.C), K = static_cast<std::size_t>(run.K), V = static_cast<std::size_t>(run.V);
  for (auto* matrix : {&start, &dS}) matrix->assign(K * V, 0);
  for (auto* matrix : {&d_o, &dU, &dZ, &dV, &weighted_, &residual_}) matrix->assign(C * V, 0);
  for (auto* matrix : {&dAkk, &dAqk}) matrix->assign(C * C, 0);
  for (auto* matrix : {&row_query, &row_key, &column, &tail, &dq, &dk, &dg}) matrix->assign(C * K, 0);
  for (auto* row : {&end_of_heads, &dg_after, &G_end}) row->assign(K, 0);
  dbeta.assign(C, 0);
}

float HeadReverse::operand(float x) const { return run.operand(x); }
float HeadReverse::score(float x) const { return run.score(x); }
float HeadReverse::stored(float x) const { return round_to(run.contract.gradient_state, x); }

float HeadReverse::strength(std::int64_t i) const {
  const float beta = run.beta[static_cast<std::size_t>(i)];
  return on(Fault::beta_bf16_backward) ? round_bf16(beta) : beta;
}

float HeadReverse::exponential(float x) const { return on(Fault::alpha_bf16_backward) ? round_bf16(std::exp(x)) : std::exp(x); }

/// e^{G_i - G_j} of channel c.
float HeadReverse::pair_decay(std::int64_t i, std::int64_t j, std::int64_t c, std::int64_t length) const {
  const float Gi = run.G[at(i, c)], Gj = run.G[at(j, c)], anchor = run.G[at(length / 2, c)];
  if (on(Fault::shared_anchor)) return std::exp(Gi - anchor) * std::exp(anchor - Gj);
  if (on(Fault::split_decay_bf16_backward)) return round_bf16(std::exp(Gi)) * round_bf16(std::exp(-Gj));
  return exponential(Gi - Gj) * (j < i ? 1.0f : 0.0f);
}

void HeadReverse::chunk(std::int64_t index, std::int64_t length) {
  if (on(Fault::inverse_bf16_backward))
    for (float& x : run.T) x = round_bf16(x);
  read_ = start, d_end = dS;
  for (auto* matrix : {&read_, &d_end})
    for (float& x : *matrix) x = operand(stored(x));
  for (float& x : d_o) x = operand(x);
  solve(length);
  strengths(length, read_);
  score_gradients(length);
  through_states(index, length);
  through_scores(length);
  finish(length);
  decay_gradient(index, length);
  carry_back(index, length);
}

void HeadReverse::solve(std::int64_t length) {
  const bool reversed = on(Fault::backward_order_varies) && vary(1) % 2 == 1;
  for (std::int64_t i = 0; i < length; ++i)
    for (std::int64_t j = 0; j < run.V; ++j) {
      float sum = 0;
      if (!on(Fault::dU_without_scores))
        sum = run.sum(i, length, [&](std::int64_t step) {
          const std::int64_t m = reversed ? length - 1 - (step - i) : step;
          return run.Aqk[run.pair(m, i)] * d_o[value(m, j)];
        });
      if (!on(Fault::dU_without_state)) sum += run.sum(0, run.K, [&](std::int64_t c) { return run.kr[at(i, c)] * d_end[value(c, j)]; });
      dU[value(i, j)] = on(Fault::dU_bf16) ? round_bf16(sum) : operand(sum);
    }
  for (std::int64_t i = 0; i < length; ++i)
    for (std::int64_t j = 0; j < run.V; ++j) {
      float sum = run.sum(i, length, [&](std::int64_t m) { return run.T[run.pair(m, i)] * dU[value(m, j)]; });
      if (on(Fault::dZ_not_solved)) sum = dU[value(i, j)];
      if (on(Fault::dZ_solved_forward)) sum = run.sum(0, i + 1, [&](std::int64_t m) { return run.T[run.pair(i, m)] * dU[value(m, j)]; });
      dZ[value(i, j)] = on(Fault::dZ_bf16) ? round_bf16(sum) : sum;
    }
}

/// dV, dbeta, and the operands that the rest is made of.
void HeadReverse::strengths(std::int64_t length, const std::vector<float>& read) {
  const bool ungated = run.in.options.gate == GateForm::absent;
  for (std::int64_t i = 0; i < length; ++i) {
    const float beta = strength(i);
    float sum = 0, divided = 0;
    for (std::int64_t j = 0; j < run.V; ++j) {
      const float stored = run.sum(0, run.K, [&](std::int64_t c) { return run.kd[at(i, c)] * read[value(c, j)]; });
      const float inside = run.sum(0, i, [&](std::int64_t m) { return run.Akk[run.pair(i, m)] * run.U[value(m, j)]; });
      residual_[value(i, j)] = run.v[value(i, j)] - stored;
      float difference = residual_[value(i, j)] - inside;
      if (on(Fault::dbeta_without_scores) || (on(Fault::ungated_dbeta_short) && ungated)) difference = residual_[value(i, j)];
      if (on(Fault::dbeta_without_state)) difference = run.v[value(i, j)] - inside;
      const float dz = dZ[value(i, j)];
      sum += dz * difference;
      divided += beta * dz * difference;
      dV[value(i, j)] = on(Fault::dv_not_times_beta) ? dz : beta * dz;
      weighted_[value(i, j)] = operand(beta * dz);
    }
    dbeta[static_cast<std::size_t>(i)] = on(Fault::dbeta_by_division) ? divided / (beta + 1e-10f) : sum;
  }
}

void HeadReverse::score_gradients(std::int64_t length) {
  const auto& other = on(Fault::dA_from_residual) ? residual_ : run.U;
  const auto rounded = [&](float x) { return on(Fault::dA_bf16) ? round_bf16(x) : score(x); };
  for (std::int64_t i = 0; i < length; ++i)
    for (std::int64_t j = 0; j < length; ++j) {
      const float kk = run.sum(0, run.V, [&](std::int64_t v) { return operand(dZ[value(i, v)]) * other[value(j, v)]; });
      const float qk = run.sum(0, run.V, [&](std::int64_t v) { return d_o[value(i, v)] * run.U[value(j, v)]; });
      float factor = -strength(on(Fault::dA_beta_of_column) ? j : i);
      if (on(Fault::dA_without_beta)) factor = -1;
      if (on(Fault::dA_missing)) factor = 0;
      if (on(Fault::dA_wrong_sign)) factor = -factor;
      const bool below = j < i || (j == i && on(Fault::dA_with_diagonal));
      dAkk[run.pair(i, j)] = below ? rounded(factor * kk) : 0;
      dAqk[run.pair(i, j)] = j <= i ? rounded(qk) : 0;
    }
}

/// e^G dO S^T, -e^G (beta dZ) S^T and e^{G_C-G} U dS'^T.
void HeadReverse::through_states(std::int64_t index, std::int64_t length) {
  const std::int64_t last = length - 1;
  const bool erase = !on(Fault::dk_without_erase) && !(on(Fault::ungated_dk_skipped) && run.in.options.gate == GateForm::absent);
  for (std::int64_t i = 0; i < length; ++i)
    for (std::int64_t c = 0; c < run.K; ++c) {
      const float own = exponential(run.G[at(i, c)]);
      const float toward = on(Fault::key_tail_unmasked) && length < run.C && index > 0 ? 0 : run.G[at(last, c)];
      const float of_query = run.sum(0, run.V, [&](std::int64_t j) { return d_o[value(i, j)] * read_[value(c, j)]; });
      const float of_key = run.sum(0, run.V, [&](std::int64_t j) { return weighted_[value(i, j)] * read_[value(c, j)]; });
      const float of_tail = run.sum(0, run.V, [&](std::int64_t j) { return run.U[value(i, j)] * d_end[value(c, j)]; });
      row_query[at(i, c)] = on(Fault::dq_without_state) ? 0 : own * of_query;
      row_key[at(i, c)] = erase ? -own * of_key : 0;
      tail[at(i, c)] = on(Fault::dk_without_carry) ? 0 : exponential(toward - run.G[at(i, c)]) * of_tail;
      column[at(i, c)] = 0;
      if (on(Fault::backward_aliased_buffers) && run.K >= 64 && i == 3) tail[at(i, c)] = row_key[at(i, c)];
    }
  if (run.tree == SumTree::pairs) state_query_ = row_query, state_key_ = row_key;
}

/// What pairs i > j send to both their tokens.
void HeadReverse::through_scores(std::int64_t length) {
  const float scale = run.in.options.scale;
  for (std::int64_t i = 0; i < length; ++i)
    for (std::int64_t j = 0; j < (on(Fault::backward_mask_by_multiplication) ? length : i); ++j) {
      const float kk = dAkk[run.pair(i, j)], qk = dAqk[run.pair(i, j)];
      for (std::int64_t c = 0; c < run.K; ++c) {
        const float decay = pair_decay(i, j, c, length);
        const float k_j = score(run.k[at(j, c)] * decay);
        if (!on(Fault::dq_without_scores)) row_query[at(i, c)] += qk * k_j;
        row_key[at(i, c)] += kk * k_j;
        column[at(j, c)] += kk * score(run.k[at(i, c)] * decay);
        if (!on(Fault::dk_without_reads)) column[at(j, c)] += qk * score(scale * run.q[at(i, c)] * decay);
      }
    }
}

/// The pairs i = j, then dq and dk.
void HeadReverse::finish(std::int64_t length) {
  const float scale = run.in.options.scale;
  for (std::int64_t i = 0; i < length; ++i) {
    float same = dAqk[run.pair(i, i)];
    if (on(Fault::reads_without_diagonal)) same = 0;
    if (on(Fault::reads_diagonal_twice)) same *= 2;
    for (std::int64_t c = 0; c < run.K; ++c) {
      const float q = row_query[at(i, c)] + same * run.k[at(i, c)];
      const float on_diagonal = same * scale * run.q[at(i, c)] + 2 * dAkk[run.pair(i, i)] * run.k[at(i, c)];
      dq[at(i, c)] = on(Fault::dq_unscaled) ? q : on(Fault::dq_scaled_twice) ? scale * scale * q : scale * q;
      dk[at(i, c)] = row_key[at(i, c)] + (column[at(i, c)] + tail[at(i, c)] + on_diagonal);
      if (on(Fault::backward_single_token_skipped) && run.sequence.length == 1) dq[at(i, c)] = dk[at(i, c)] = 0;
      if (on(Fault::backward_last_channel_dropped) && c == run.K - 1 && run.K % 8 != 0) dk[at(i, c)] = 0;
    }
  }
}

void HeadReverse::start_sums(const std::vector<float>& final_state) {
  for (std::int64_t c = 0; c < run.K; ++c) {
    float& sum = dg_after[static_cast<std::size_t>(c)];
    if (!on(Fault::sums_over_heads)) sum = 0;
    if (on(Fault::sums_forget_final_state)) continue;
    sum = run.sum(
        0, run.V, [&](std::int64_t j) { return stored(final_state[value(c, j)]) * stored(dS[value(c, j)]); }, sum);
  }
}

/// What becomes of a running sum on its way into a chunk from the one after it.
void HeadReverse::hand_over_sum(std::int64_t index, std::int64_t length, float& sum) const {
  const std::int64_t end = index * run.C + length;
  if (end == run.sequence.length || end % 64 != 0) return;
  if (on(Fault::sums_forget_carry)) sum = 0;
  if (on(Fault::sums_carry_bf16)) sum = round_bf16(sum);
}

/// What pairs i > j of one channel give to dG, from the last column to the first, scores of queries before those of keys.
void HeadReverse::add_pairs(std::int64_t length, std::int64_t c, std::vector<float>& dG) const {
  for (const bool of_query : {true, false})
    for (std::int64_t j = length - 2; j >= 0; --j) {
      float column_sum = 0;
      for (std::int64_t i = j + 1; i < length; ++i) {
        const float row = of_query ? run.in.options.scale * run.q[at(i, c)] : run.k[at(i, c)];
        const float term = (of_query ? dAqk : dAkk)[run.pair(i, j)] * row * run.k[at(j, c)] * std::exp(run.G[at(i, c)] - run.G[at(j, c)]);
        dG[static_cast<std::size_t>(i)] += term;
        column_sum += term;
      }
      dG[static_cast<std::size_t>(j)] -= column_sum;
    }
}

void HeadReverse::decay_gradient(std::int64_t index, std::int64_t length) {
  const std::int64_t last = length - 1;
  const bool by_pairs = run.tree == SumTree::pairs, running = sums_over_tokens();
  const float scale = run.in.options.scale;
  for (std::int64_t c = 0; c < run.K; ++c) {
    const float whole = on(Fault::dg_end_not_decayed) ? 1 : std::exp(run.G[at(last, c)]);
    const float state = run.sum(0, run.V, [&](std::int64_t j) { return stored(start[value(c, j)]) * stored(dS[value(c, j)]); });
    const float keys = run.sum(0, last, [&](std::int64_t i) { return run.k[at(i, c)] * tail[at(i, c)]; });
    float of_end = (on(Fault::dg_without_carried_keys) ? 0 : keys) + (on(Fault::dg_without_end) ? 0 : whole * state);
    if (on(Fault::dg_end_of_all_heads)) of_end += end_of_heads[static_cast<std::size_t>(c)];
    end_of_heads[static_cast<std::size_t>(c)] += whole * state;

    std::vector<float> dG(static_cast<std::size_t>(length));
    for (std::int64_t i = 0; i < length; ++i) {
      const float q = scale * run.q[at(i, c)], k = run.k[at(i, c)], same = dAqk[run.pair(i, i)];
      float of_query = row_query[at(i, c)], of_key = row_key[at(i, c)], of_column = column[at(i, c)];
      if (by_pairs) of_query = state_query_[at(i, c)], of_key = state_key_[at(i, c)], of_column = 0;
      if (i != last || running) of_column += tail[at(i, c)];
      if (on(Fault::dg_diagonal_left_in) || on(Fault::dg_diagonal_cancelled)) of_query += same * k;
      if (on(Fault::dg_diagonal_cancelled)) of_column += same * q;
      if (on(Fault::dg_without_queries)) of_query = 0;
      float own = q * of_query + (k * of_key - k * of_column);
      if (on(Fault::exp_before_mask))
        for (std::int64_t j = i + 1; j < length; ++j) own += 0.0f * std::exp(run.G[at(i, c)] - run.G[at(j, c)]);
      if (i == (on(Fault::dg_end_in_first_row) ? 0 : last) && !running) own += of_end;
      if (on(Fault::sums_start_late) && index * run.C + i == run.sequence.length - 1) own = 0;
      dG[static_cast<std::size_t>(i)] = own;
    }
    if (by_pairs) add_pairs(length, c, dG);
    float sum = running || on(Fault::dg_sum_over_chunks) ? dg_after[static_cast<std::size_t>(c)] : 0;
    if (running) hand_over_sum(index, length, sum);
    for (std::int64_t i = last; i >= 0; --i) {
      const float own = dG[static_cast<std::size_t>(i)], later = sum;
      sum += own;
      if (on(Fault::dg_sum_bf16)) sum = round_bf16(sum);
      dg[at(i, c)] = on(Fault::dg_sum_exclusive) ? later : on(Fault::dg_not_summed) ? own : sum;
    }
    dg_after[static_cast<std::size_t>(c)] = sum;
    float before = 0;
    for (std::int64_t i = 0; i < length; ++i) {
      if (on(Fault::dg_sum_by_subtraction)) dg[at(i, c)] = sum - before;
      before += dG[static_cast<std::size_t>(i)];
      if (on(Fault::dg_sum_from_start)) dg[at(i, c)] = before;
      if (on(Fault::dg_clamped)) dg[at(i, c)] = std::clamp(dg[at(i, c)], -1.0f, 1.0f);
      if (on(Fault::dg_in_base_two)) dg[at(i, c)] *= 0.6931472f;
      if (on(Fault::dg_bf16)) dg[at(i, c)] = round_bf16(dg[at(i, c)]);
    }
  }
}

void HeadReverse::carry_back(std::int64_t index, std::int64_t length) {
  const float unscaled = on(Fault::dS_queries_unscaled) ? 1 / run.in.options.scale : 1;
  const bool stays = on(Fault::dS_not_decayed) || (on(Fault::first_dS_not_decayed) && index == 0);
  for (std::int64_t c = 0; c < run.K; ++c) {
    const float whole = stays ? 1 : exponential(G_end[static_cast<std::size_t>(c)]);
    for (std::int64_t j = 0; j < run.V; ++j) {
      float reads = run.sum(0, length, [&](std::int64_t i) { return run.qd[at(i, c)] * d_o[value(i, j)]; }) * unscaled;
      float erased = run.sum(0, length, [&](std::int64_t i) { return run.kd[at(i, c)] * weighted_[value(i, j)]; });
      if (on(Fault::dS_without_queries)) reads = 0;
      if (on(Fault::dS_without_erase)) erased = 0;
      const float carried = on(Fault::dS_dropped) && index == 1 ? 0 : whole * dS[value(c, j)];
      float& d = dS[value(c, j)];
      d = on(Fault::d_initial_without_first_chunk) && index == 0 ? carried : carried + (reads - erased);
      if (on(Fault::dS_bf16)) d = round_bf16(d);
    }
  }
}

} // namespace kdacheck::faults
