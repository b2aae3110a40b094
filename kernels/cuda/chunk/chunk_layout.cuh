#pragma once
// Shared memory of a chunk kernel's block.
//
// A *stage* is one chunk of 16 tokens, ready for the state update, in `pieces` bf16 terms each (1: bf16; 2: x = hi + lo,
// 16 bits; mixed_terms: as below):  kd qd kr [16,K]   T diag(beta) [16,16]   Aqk [16,16]   e^{G_C} [K] fp32.
// A *workbench* belongs to one producer warp: the raw rows of q, k, g; operands of the scores; small fp32 matrices.
// A *lane area* belongs to one consumer warp: its ring of value tiles [16 tokens, 16 columns] and its output tile.
// Rows are cut into 16-byte segments, exchanged within 128 bytes by xor with the row, so that moving an 8x8 matrix
// touches every bank once.

#include "../device/warp.cuh"

namespace kdacheck::cuda {

inline constexpr int chunk_tokens = 16;
inline constexpr int value_ring = 4;           ///< value tiles in flight
inline constexpr int tile_bytes = 16 * 16 * 2; ///< [16,16] of 16-bit numbers

/// In place of a number of bf16 terms: kr in two bf16 terms, kd, qd, T and Aqk in one fp16 term (11 bits). What these multiply, states,
/// residuals and updates, and the operands of scores are tf32: no scale, no overflow.
inline constexpr int mixed_terms = 3;
/// Words that a pair of numbers takes.
constexpr __device__ __host__ __forceinline__ int terms_of(int pieces) { return pieces == mixed_terms ? 1 : pieces; }
/// The terms of kr.
constexpr __device__ __host__ __forceinline__ int terms_of_kr(int pieces) { return pieces == mixed_terms ? 2 : pieces; }

/// Byte offset of channel c in a row of 16-bit numbers at least 64 long.
constexpr __device__ __host__ __forceinline__ unsigned swizzled(unsigned row, unsigned c, unsigned row_bytes) {
  return row * row_bytes + ((c / 8) ^ (row & 7)) * 16 + (c % 8) * 2;
}
/// The same 16 step channels further, where the row begins at a multiple of its length and c is below 16.
constexpr __device__ __host__ __forceinline__ unsigned steps_further(unsigned address, int step) {
  return address ^ (32 * static_cast<unsigned>(step));
}
/// Row `row` of what lies at `address` in row 0, which begins at a multiple of 128.
constexpr __device__ __host__ __forceinline__ unsigned row_further(unsigned address, unsigned row, unsigned row_bytes) {
  return (address ^ (16 * (row & 7))) + row * row_bytes;
}
/// Byte offset of half h (8 numbers) of a row of a [16,16] tile of 16-bit numbers.
constexpr __device__ __host__ __forceinline__ unsigned tile_offset(unsigned row, unsigned h) {
  return row * 32 + ((h ^ ((row >> 2) & 1)) * 16);
}

/// What walks through the chunks: the forward pass; the first sweep of the backward pass, which needs only states and
/// residuals; the second one, from the last chunk to the first. `stored`: none, but chunks are kept in memory for both of these.
enum class Sweep { forward, states, adjoint, stored };

/// A stage of a sweep also holds the 16 betas. For `states`, T is (I + Akk diag(beta))^{-1}; qd and Aqk are left empty. For
/// `adjoint`, T is (I + diag(beta) Akk)^{-1}.
template <int K, int pieces, Sweep sweep = Sweep::forward> struct StageLayout {
  static constexpr int piece = chunk_tokens * K * 2;
  static constexpr int terms = terms_of(pieces);
  static constexpr int kd = 0, qd = kd + terms * piece, kr = qd + terms * piece;
  static constexpr int T = kr + terms_of_kr(pieces) * piece, Aqk = T + terms * tile_bytes, decay = Aqk + terms * tile_bytes;
  static constexpr int betas = decay + K * 4, bytes = betas + (sweep == Sweep::forward ? 0 : 2 * K);
  static_assert(bytes % (2 * K) == 0); // or lanes could not exchange bits of addresses
};

/// A stage as the backward pass keeps it in memory, for both sweeps: each takes a part in one copy.
template <int K, int pieces> struct StageLayout<K, pieces, Sweep::stored> {
  static constexpr int piece = chunk_tokens * K * 2;
  static constexpr int T_states = 0, kd = T_states + pieces * tile_bytes, kr = kd + pieces * piece, decay = kr + pieces * piece,
                       betas = decay + K * 4; ///< twice, so that what follows lies at 128 bytes
  static constexpr int T = betas + 128, Aqk = T + pieces * tile_bytes, qd = Aqk + pieces * tile_bytes, bytes = qd + pieces * piece;
};
/// The part of it that a sweep takes: bytes [first, first + bytes), and offsets in that.
template <int K, int pieces, Sweep sweep> struct StagePart {
  using Whole = StageLayout<K, pieces, Sweep::stored>;
  static constexpr int first = sweep == Sweep::states ? 0 : Whole::kd, piece = Whole::piece;
  static constexpr int kd = Whole::kd - first, kr = Whole::kr - first, decay = Whole::decay - first, betas = Whole::betas - first;
  static constexpr int T = sweep == Sweep::states ? Whole::T_states : Whole::T - first, Aqk = Whole::Aqk - first, qd = Whole::qd - first;
  static constexpr int bytes = sweep == Sweep::states ? Whole::T : Whole::bytes - first;
};

/// Numbers between columns of L, the matrix of a chunk's system, transposed: 8 lanes of 4 columns write to different banks.
inline constexpr int matrix_stride = 20, matrix_bytes = 4 * chunk_tokens * matrix_stride;

/// The small matrices lie over the operands of scores, which are no longer needed when they are made.
template <int K, int pieces, Sweep sweep = Sweep::forward> struct WorkbenchLayout {
  static constexpr int raw_row = K * 2;
  static constexpr int raw_q = 0, raw_k = raw_q + chunk_tokens * raw_row;
  static constexpr int score_piece = 24 * 128;     ///< of a level: 8 rows of k, 8 of q, 8 columns of k; 64 channels
  static constexpr int score_row_piece = 16 * 128; ///< of a tile: 16 columns of k; 64 channels. Sweep::stored: 16 rows of k and q too
  static constexpr int score_rows = raw_k + chunk_tokens * raw_row;
  static constexpr int slot_row = 64 * 4; ///< a token of a pass in fp32 (chunk_stream.cuh)
  static constexpr int score_bytes = sweep == Sweep::stored  ? 3 * score_row_piece
                                     : pieces == mixed_terms ? 16 * slot_row
                                                             : terms_of(pieces) * score_piece;
  static constexpr int L = score_rows;                   ///< fp32; then T. The second one, of Sweep::stored, matrix_bytes further
  static constexpr int Aqk = L + matrix_bytes;           ///< [16,16] fp32; where scores are made level by level
  static constexpr int norms = score_rows + score_bytes; ///< factors of 16 q rows, of 16 k rows; 16 betas
  static constexpr int diagonal = norms + 192, biases = diagonal + 64; ///< Aqk_ii; dt_bias
  static constexpr int raw_g = biases + 4 * K;
  static constexpr __device__ __host__ int bytes(int gate_bytes) { return raw_g + chunk_tokens * K * gate_bytes; }
};

inline constexpr int most_stages = 12;
inline constexpr int barrier_bytes = 24 * most_stages; ///< full and empty barriers, and a count of rounds, for each stage
inline constexpr int header_bytes = 512;               ///< and the number of the gang; stages begin where lanes exchange bits of addresses
static_assert(barrier_bytes + 4 <= header_bytes);
inline constexpr int consumer_bytes = (value_ring + 1) * tile_bytes;

/// Dynamic shared memory of a block. `staged`: chunks are prepared beside the ring.
template <int K, int pieces, Sweep sweep = Sweep::forward>
constexpr __device__ __host__ int chunk_shared_bytes(int stages, int producer_warps, int consumer_warps, int gate_bytes, bool staged) {
  return header_bytes + (stages + (staged ? producer_warps : 0)) * StageLayout<K, pieces, sweep>::bytes +
         producer_warps * WorkbenchLayout<K, pieces>::bytes(gate_bytes) + consumer_warps * consumer_bytes;
}

/// 16-bit terms of two numbers: x = hi (+ lo).
template <int pieces> struct Terms {
  std::uint32_t word[terms_of(pieces)];
};
template <int pieces> __device__ __forceinline__ Terms<pieces> split(float x, float y) {
  Terms<pieces> terms;
  terms.word[0] = pieces == mixed_terms ? pack_fp16(x, y) : pack_bf16(x, y);
  if constexpr (pieces == 2) {
    const Pair high = unpack_bf16(terms.word[0]);
    terms.word[1] = pack_bf16(x - high.x, y - high.y);
  }
  return terms;
}

/// A 16x16 operand held by a warp, in terms.
template <int pieces> struct Operand {
  std::uint32_t word[terms_of(pieces)][4];
};

/// c += a b over 16 inner elements; of the products of terms, lo*lo (2^-18) is left out. `half` selects which 8 of b's 16
/// columns.
template <int pieces>
__device__ __forceinline__ void multiply_add(float (&c)[4], const Operand<pieces>& a, const Operand<pieces>& b, int half) {
  if constexpr (pieces == 2) {
    multiply_add(c, a.word[1], b.word[0][2 * half], b.word[0][2 * half + 1]);
    multiply_add(c, a.word[0], b.word[1][2 * half], b.word[1][2 * half + 1]);
  }
  if constexpr (pieces == mixed_terms)
    multiply_add_fp16(c, a.word[0], b.word[0][2 * half], b.word[0][2 * half + 1]);
  else
    multiply_add(c, a.word[0], b.word[0][2 * half], b.word[0][2 * half + 1]);
}

/// Two accumulator tiles [16,8] side by side as the left operand of the next product.
template <int pieces> __device__ __forceinline__ Operand<pieces> as_operand(const float (&left)[4], const float (&right)[4]) {
  Operand<pieces> operand;
  const Terms<pieces> t0 = split<pieces>(left[0], left[1]), t1 = split<pieces>(left[2], left[3]);
  const Terms<pieces> t2 = split<pieces>(right[0], right[1]), t3 = split<pieces>(right[2], right[3]);
#pragma unroll
  for (int piece = 0; piece < pieces; ++piece) {
    operand.word[piece][0] = t0.word[piece];
    operand.word[piece][1] = t1.word[piece];
    operand.word[piece][2] = t2.word[piece];
    operand.word[piece][3] = t3.word[piece];
  }
  return operand;
}

} // namespace kdacheck::cuda
