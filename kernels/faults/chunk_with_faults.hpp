#pragma once
// One value head of one sequence in the chunkwise kernel of faults.hpp. Matrices are row-major with rows = tokens of a
// chunk (C of them) and the columns that their names say.

#include "faults.hpp"
#include "sum_tree.hpp"

#include <atomic>
#include <vector>

namespace kdacheck::faults {

/// Counts calls of faults that come and go.
unsigned vary(unsigned step);

struct HeadRun {
  const Inputs& in;
  const Contract& contract;
  Fault fault; ///< none where it does not act
  const SumTree tree;
  const Sequence sequence;
  const std::int64_t head, K, V, C, group, key_head;
  const std::int64_t key_rows_back;                      ///< how far before a token's row its key is read: 0, unless a fault says otherwise
  std::int64_t used = 0;                                 ///< rows that the chunk computes with: its length, unless a fault says otherwise
  std::vector<float> q, k, G, kd, qd, kr;                ///< [C,K]
  std::vector<float> v, Z, U;                            ///< [C,V]
  std::vector<float> Akk, Aqk, T;                        ///< [C,C]
  std::vector<float> beta;                               ///< [C]
  std::vector<float> S;                                  ///< [K,V]
  std::vector<float> rank_state, product, exact_product; ///< of a product of transitions in bf16: [K,V], [K,K], [K,K]

  HeadRun(const Inputs&, const Contract&, Fault, const Sequence&, std::int64_t head, SumTree = SumTree::rising);

  /// start + term(first) + .. + term(last - 1), added as `tree` says. In rising order the sum starts from `start`.
  template <class Term> float sum(std::int64_t first, std::int64_t last, Term&& term, float start = 0) const {
    return tree_sum(tree, first, last, term, start);
  }

  /// The sum of the log decay of channel c over those tokens.
  float decay_sum(std::int64_t first, std::int64_t length, std::int64_t c) const;

  /// Tokens first .. first + length - 1 (rows of [B,T]); o receives [length, V].
  void chunk(std::int64_t first, std::int64_t length, std::int64_t index, float* o);

  bool on(Fault which) const { return fault == which; }
  float as_input(Format format, float x) const {
    return contract.truncate && format == Format::tf32 ? truncate_tf32(x) : round_to(format, x);
  }
  float operand(float x) const { return as_input(contract.operands, x); }
  float score(float x) const { return as_input(contract.scores, x); }
  std::size_t at(std::int64_t i, std::int64_t c) const { return static_cast<std::size_t>(i * K + c); }
  std::size_t pair(std::int64_t i, std::int64_t j) const { return static_cast<std::size_t>(i * C + j); }
  std::size_t state_at(std::int64_t c, std::int64_t j, bool transposed) const {
    return static_cast<std::size_t>(transposed ? (j * K + c) % (K * V) : c * V + j);
  }
  /// Element [row = b T + t, h, c] of a [B,T,heads,channels] tensor.
  float element(const TensorView& view, std::int64_t row, std::int64_t h, std::int64_t c) const {
    const std::int64_t b = row / in.shape.T, t = row % in.shape.T;
    if (on(Fault::strides_ignored)) return load(view, ((b * in.shape.T + t) * view.shape[2] + h) * view.shape[3] + c);
    std::int64_t offset = view.offset(b, t, h, c);
    if (on(Fault::sixteen_bit_offsets)) offset &= 0xffff;
    return load(view, offset);
  }

private:
  float exponential(float) const;
  float log_decay(std::int64_t row, std::int64_t c) const;
  float write_strength(std::int64_t row) const;
  void load_direction(Input, std::int64_t row, float* destination) const;
  void load_chunk(std::int64_t first, std::int64_t length);
  float pair_decay(std::int64_t i, std::int64_t j, std::int64_t c, std::int64_t length) const;
  void form_scores(std::int64_t length);
  float scale_of_query() const;
  void write_outputs(std::int64_t length, std::int64_t index, const std::vector<float>& read, float* o);
  void carry(std::int64_t index, std::int64_t end);
  void multiply_transitions(std::int64_t index);
  void hand_to_next_rank(std::int64_t index);
};

} // namespace kdacheck::faults
