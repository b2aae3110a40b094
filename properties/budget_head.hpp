#pragma once
// One value head of one sequence as the chunk algebra sees it: in fp64, forms resolved, with the size of the errors that a
// kernel may make while it resolves them.

#include "../kernels/contract.hpp"
#include "../reference/problem.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

struct Head {
  std::int64_t tokens = 0, K = 0, V = 0; ///< V: number of value columns looked at
  double scale = 1;
  bool dplr = false, normalised = false;            ///< normalised: the kernel itself divides q and k by their norms
  std::vector<double> q, k;                         ///< [tokens,K], after any l2norm
  std::vector<double> v;                            ///< [tokens,V]
  bool exact_values = true;                         ///< v is a number of the operands' format as it stands
  std::vector<double> g;                            ///< [tokens,K] log decay, <= 0
  std::vector<double> gate_error;                   ///< [tokens,K] largest absolute error of a log decay resolved in fp32
  std::vector<double> sum_error;                    ///< [tokens,K] largest absolute error of a log decay as a term of a sum (see below)
  std::vector<double> beta, beta_error;             ///< [tokens]; the error is relative
  std::vector<double> a, b;                         ///< [tokens,K], DPLR
  std::vector<double> state;                        ///< [K,V] at the start
  std::vector<double> gate_slope, gate_slope_error; ///< [tokens,K] d log decay / d g as given, and its largest absolute error
  std::vector<double> rate_slope, rate_slope_error; ///< [tokens,K] d log decay / d A_log; empty without A_log
  std::vector<double> beta_slope, beta_slope_error; ///< [tokens] d beta / d beta as given
  std::vector<double> q_norm, k_norm;               ///< [tokens] what normalised rows were multiplied by
  double norm_error = 0;                            ///< relative error that one token's normalised key (query) has in common
  std::vector<std::int64_t> columns;                ///< which value columns these are
  std::vector<double> weight;                       ///< [V] size of each column, never 0
  std::int64_t all_columns = 0;                     ///< value columns that the head has, looked at or not
  double unseen = 0;                                ///< sum of squares of the sizes of those not looked at
};

/// The first of a chunk's sums of log decay is its first term in the format of sums. That rounds it (Head::sum_error), as it
/// may every later term before it is added, where the format is coarser than the fp32 in which log decays arrive or are
/// resolved; a log decay that arrives as a number of the format stays what it is.

/// Resolves gates, beta and norms of value head `head` of a sequence, for the given value columns.
Head read_head(const Contract&, const Problem&, const Sequence&, std::int64_t head, std::vector<std::int64_t> columns);

/// Size of every value column of that head: root mean square of its values and of its initial state, never 0.
std::vector<double> column_sizes(const Problem&, const Sequence&, std::int64_t head);

/// At most `most` columns: the largest half by size, the others evenly spread. All columns if there are no more.
std::vector<std::int64_t> choose_columns(const std::vector<double>& sizes, std::int64_t most);

} // namespace kdacheck
