#pragma once
// The chunkwise form of KDA (design: chunk of C tokens, secondary chunking in blocks of 16), for any operand format. The
// contract is the program: chunk, order, operands, scores and state say where numbers are rounded.

#include "../kernel.hpp"
#include "arena.hpp"
#include "operand.hpp"
#include "scores.hpp"

namespace kdacheck::cpu {

/// The chunkwise kernel that keeps this contract, forward and backward. Accumulation, sums of log decay and the
/// triangular solve are fp32 whatever the operands are.
Kernel chunkwise(std::string name, std::string summary, Contract contract);

/// Buffers of one chunk of one value head; rows are padded, matrices have C columns rounded up to sixteen.
struct Chunk {
  std::int64_t C = 0, n = 0, K = 0, V = 0, matrix = 0; ///< C tokens at most, n of them here; padded K, padded V, matrix stride
  // Inputs in fp32.
  float *q = nullptr, *k = nullptr, *v = nullptr; ///< [C,K] after l2norm, q times scale; [C,V]
  float *G = nullptr, *beta = nullptr, *raw_beta = nullptr;
  double *q_inverse = nullptr, *k_inverse = nullptr; ///< [C] of the l2norm
  // Operands, rounded.
  float *kd = nullptr, *qd = nullptr, *kr = nullptr; ///< [C,K] k e^G, scale q e^G, k e^{G_C - G}
  float* state_operand = nullptr;                    ///< [K,V]
  ScoreFrame frame;
};

/// What the backward pass needs of a chunk besides its inputs.
struct ChunkRecord {
  float* state = nullptr;               ///< [K,V] at the start of the chunk
  float *Akk = nullptr, *Aqk = nullptr; ///< [C,matrix], strictly lower and lower; Aqk rounded
  float* L = nullptr;                   ///< [C,matrix] beta_i Akk_ij
  float* T = nullptr;                   ///< [C,matrix] (I + L)^{-1} rounded; null for fp32 operands
  float* residual = nullptr;            ///< [C,V] v - kd S
  float* U = nullptr;                   ///< [C,V] rounded
};

struct ChunkPlan {
  std::int64_t C = 64;
  OperandFormat operands, scores;
  Format state = Format::fp32;
  bool wy = false;
  bool inverse() const { return operands.format != Format::fp32; } ///< T is formed and rounded
};

ChunkPlan plan_of(const Contract&);
Chunk take_chunk(Arena&, const ChunkPlan&, const Inputs&);
ChunkRecord take_record(Arena&, const ChunkPlan&, const Inputs&);

/// Reads n tokens from row `row` on and forms their decayed operands.
void read_chunk(const ChunkPlan&, const Inputs&, std::int64_t row, std::int64_t head, std::int64_t n, Chunk&);

/// Scores, inverse, residual and U of the chunk from record.state; `scratch` holds [C,max(K,V)] numbers.
void solve_chunk(const ChunkPlan&, Chunk&, ChunkRecord&, float* scratch);

/// o = qd S + Aqk U, fp32.
void chunk_output(const Chunk&, const ChunkRecord&, float* o);

/// record.state to `next` (may be the same): e^{G_C} S + kr^T U, rounded as it is stored.
void next_state(const ChunkPlan&, const Chunk&, const ChunkRecord&, float* next);

} // namespace kdacheck::cpu
