#pragma once
// The chunkwise form of the general rule S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T, and KDA through it.
//
// With w_t = -S_{t-1}^T b_t the rule reads S_t = Diag(alpha_t) S_{t-1} + a_t w_t^T + k_t v_t^T. In a chunk, with G the
// running sums of log decay and G^- those before each token:
//   Aba_ij = sum_c b_ic a_jc e^{G^-_ic - G_jc} (i > j), Abk alike with k;  Aqa, Aqk with q and G (i >= j)
//   (I + Aba) w = -(bd S + Abk v)      bd = b e^{G^-}   qd = q e^G   ar, kr = a, k e^{G_C - G}
//   O = qd S + Aqa w + Aqk v           S' = Diag(e^{G_C}) S + ar^T w + kr^T v
//
// KDA through it has a = k (= beta key), so that w and v enter together. They nearly cancel where the memory holds v already:
// u = w + v is what is solved for, (I + Aba) u = v - bd S, and takes their place in O and S'.

#include "arena.hpp"
#include "chunk.hpp"

namespace kdacheck::cpu {

/// The chunkwise kernel in the general form. A contract with rule=kda is served by a = beta k, b = alpha k, key beta k.
Kernel dplr_chunkwise(std::string name, std::string summary, Contract contract);

/// Buffers of one chunk of one value head, as in Chunk.
struct DplrChunk {
  std::int64_t n = 0, K = 0, V = 0, matrix = 0;
  float *q = nullptr, *k = nullptr, *a = nullptr, *b = nullptr; ///< [C,K]; q after l2norm times scale
  float* key = nullptr;   ///< [C,K] KDA: k after l2norm, where `k` holds beta times it; null otherwise
  float* alpha = nullptr; ///< [C,K] KDA only
  float* v = nullptr;     ///< [C,V] rounded
  float *G = nullptr, *before = nullptr;
  float *beta = nullptr, *raw_beta = nullptr;
  double *q_inverse = nullptr, *k_inverse = nullptr;
  float *bd = nullptr, *qd = nullptr, *ar = nullptr, *kr = nullptr; ///< rounded operands
  float* state_operand = nullptr;
  ScoreFrame frame;
};

struct DplrRecord {
  float* state = nullptr;                                               ///< [K,V] at the start of the chunk
  float *Aba = nullptr, *Abk = nullptr, *Aqa = nullptr, *Aqk = nullptr; ///< [C,matrix]; all but Aba rounded; KDA has no Abk, Aqk
  float* T = nullptr;                                                   ///< [C,matrix] (I + Aba)^{-1} rounded; null for fp32 operands
  float* w = nullptr;                                                   ///< [C,V] rounded; KDA: u
};

DplrChunk take_dplr_chunk(Arena&, const ChunkPlan&, const Inputs&);
DplrRecord take_dplr_record(Arena&, const ChunkPlan&, const Inputs&);

void read_dplr_chunk(const ChunkPlan&, const Inputs&, std::int64_t row, std::int64_t head, std::int64_t n, DplrChunk&);

/// Scores, inverse and w (or u) from record.state; `scratch` holds [C,V] numbers.
void solve_dplr_chunk(const ChunkPlan&, DplrChunk&, DplrRecord&, float* scratch);

void dplr_output(const DplrChunk&, const DplrRecord&, float* o);
void next_dplr_state(const ChunkPlan&, const DplrChunk&, const DplrRecord&, float* next);

/// Rows and columns of the four score matrices, in the order b, q and a, k.
std::array<ScoreRows, score_kinds> score_rows(const DplrChunk&);
std::array<const float*, score_kinds> score_columns(const DplrChunk&);

} // namespace kdacheck::cpu
