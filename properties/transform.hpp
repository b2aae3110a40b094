#pragma once
// Problems made from problems: which tokens, heads and channels, in which order. The same choice applied to a result
// says what the new problem's result has to be; nearly every invariance is stated that way.

#include "run.hpp"

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace kdacheck {

/// Tokens of sequence `sequence` of the old problem, in the order listed (repeats allowed): a sequence of the new one.
struct Piece {
  std::int64_t sequence = 0;
  std::vector<std::int64_t> tokens;
};

/// first, first + 1, ..., first + count - 1.
std::vector<std::int64_t> counted(std::int64_t count, std::int64_t first = 0);

/// Where each index of the new problem comes from in the old one. Initial and final states go with a piece's sequence.
struct Choice {
  std::vector<Piece> pieces;
  std::vector<std::int64_t> key_heads, value_heads, key_channels, value_channels;
  bool packed = false; ///< hand the pieces over as packed sequences; needed unless they are equally long
};

/// The choice that changes nothing.
Choice everything(const Problem&);

/// A problem of the chosen tokens, heads and channels; cotangents go along.
Problem chosen(const Problem&, const Choice&);

/// The same choice from a result of the old problem. q's and k's gradients follow the key heads.
Run chosen(const Run&, const Problem& old, const Choice&);

/// One sequence of the problem, alone and not packed.
Choice alone(const Problem&, std::int64_t sequence);

/// The first `count` tokens of every sequence (all of it where it is shorter).
Choice prefix(const Problem&, std::int64_t count);

/// Tokens [first, first + count) of every sequence of an unpacked problem.
Choice window(const Problem&, std::int64_t first, std::int64_t count);

/// Results of consecutive windows of an unpacked problem back in one piece; final state and its gradients are those of
/// the second, the initial state's gradient that of the first.
Run joined_in_time(const Problem& first, const Run&, const Problem& second, const Run&);

/// Tokens before `from` of every sequence as in `early`, the others as in `late`; same shape, and states of `early`.
Problem spliced(const Problem& early, const Problem& late, std::int64_t from);

/// Heads per row, and channels per head, of a tensor that has a row for every token; 0 heads for the others.
struct RowShape {
  std::int64_t heads = 0, channels = 0;
  std::int64_t size() const { return heads * channels; }
};
RowShape row_shape(Input, const Shape&);

/// The problem with the numbers of some tensors multiplied; exact for powers of two and for 0.
Problem scaled(Problem, std::initializer_list<Input>, float factor);

/// d_o rounded to the format in which a kernel is handed it.
Problem with_cotangents_in(Problem, Format output);

} // namespace kdacheck
