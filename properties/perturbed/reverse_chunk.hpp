#pragma once
// The reverse mode of one chunk of KDA in fp64, in which every quantity on the way can be made another: what would a kernel
// write if it had this one wrong and everything after it right? Notation of reference/chunk_adjoint.hpp.

#include "../../reference/problem.hpp"

#include <Eigen/Dense>

#include <cstdint>
#include <functional>

namespace kdacheck {

using Matrix64 = Eigen::MatrixXd;

/// What one head's chunk of n tokens is given; q with its scale.
struct ReverseInputs {
  Matrix64 q, k, G;     ///< [n,K]; G: inclusive sums of log decay
  Matrix64 v, d_o;      ///< [n,V]
  Eigen::VectorXd beta; ///< [n]
  Matrix64 S, d_end;    ///< [K,V]: state at the start, cotangent of the state at the end
  double scale = 1;
};

/// Of a problem of KDA with one sequence and one head: all its tokens are the chunk.
ReverseInputs reverse_inputs(const Problem&);

/// What it writes. dq, dk, dg [n,K], dv [n,V], dbeta [n,1], dS [K,V].
struct ReverseOutputs {
  Matrix64 dq, dk, dv, dg, dbeta, dS;
};

/// Quantities on the way, in the order in which they are formed. Terms that end in `_in_dk` enter dk but not dg.
enum class Midway : std::uint8_t {
  read_state,    ///< [K,V] S as the reverse pass reads it
  dU_of_reads,   ///< [n,V] Aqk^T dO
  dU_of_end,     ///< [n,V] kr dS'
  dU,            ///< [n,V]
  inverse,       ///< [n,n] T, in dZ = T^T dU
  dZ,            ///< [n,V]
  dv,            ///< [n,V] as written
  dbeta_of_own,  ///< [n,1] dZ . (V - kd S)
  dbeta_of_keys, ///< [n,1] sum_j dL Akk
  dAkk,          ///< [n,n]
  dAqk,          ///< [n,n]
  q_of_state,    ///< [n,K] e^G (dO S^T)
  q_of_keys,     ///< [n,K] pairs i > j
  k_of_erase,    ///< [n,K] -e^G (beta dZ S^T)
  k_of_rows,     ///< [n,K] dAkk, as the row
  k_of_columns,  ///< [n,K] dAkk, as the column
  k_of_reads,    ///< [n,K] dAqk, pairs i > j
  k_of_end,      ///< [n,K] e^{G_C - G} (U dS'^T)
  dg_end,        ///< [1,K] rows of S . e^{G_C} dS'
  dg,            ///< [n,K] as written
  k_of_erase_in_dk,
  k_of_rows_in_dk,
  k_of_columns_in_dk,
  k_of_reads_in_dk,
  k_of_end_in_dk,
  q_of_own, ///< [n,K] the diagonal of dAqk; not in dg
  k_of_own, ///< [n,K]
  dq,       ///< [n,K] as written
  dk,       ///< [n,K] as written
  dbeta,    ///< [n,1] as written
  dS,       ///< [K,V] as written
};

/// Calls change(midway, quantity) after each quantity is formed, which may make it another.
ReverseOutputs reverse_chunk(const ReverseInputs&, const std::function<void(Midway, Matrix64&)>& change);

} // namespace kdacheck
