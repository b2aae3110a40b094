#pragma once
// The cotangent of L where a kernel differentiates T = (I + L)^{-1}: derived in proved_chunk_adjoint.cpp, 4.

#include "proved_solve.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// U = T Z, dZ = T^T dU.
struct Solved {
  const BoundMatrix &U, &Z, &Z_error, &dU, &dU_error, &dZ; ///< [n,V]; errors from the exact values
};

/// Largest errors of dL = -T^T dT T^T with dT = dU Z^T, whichever product is taken first. `extra`(i, j): by how much more dT may err.
/// `lost`: what each rounding may lose besides.
template <class Extra>
BoundMatrix error_by_inverse(const ProvedUnits& units, const SolveBound& solved, std::int64_t n, const Solved& x, double lost,
                             Extra&& extra) {
  const std::int64_t V = x.U.columns;
  const double g = units.gamma(V);
  const BoundMatrix &T = solved.inverse_size(), T_error = solved.inverse_error();
  BoundMatrix dT, dT_error, M, M_error, N, result;
  for (BoundMatrix* m : {&dT, &dT_error, &M, &M_error, &N, &result}) m->resize(n, n);
  const auto rounded = [&](double size, double error) {
    return sane((error + units.operand.error(size + error)) * ProvedUnits::up + lost);
  };
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      Lanes t{}, t_error{}, m{}, other{};
      for (std::int64_t v = 0; v < V; v += draws_per_batch) {
        const Lanes d = lanes_at(x.dU[i], v, V), size = absolute(d), error = lanes_at(x.dU_error[i], v, V);
        const Lanes Z = lanes_at(x.Z[j], v, V), Z_error = lanes_at(x.Z_error[j], v, V);
        t += d * Z, m += lanes_at(x.dZ[i], v, V) * Z, other += d * lanes_at(x.U[j], v, V);
        t_error += size * Z_error + error * (absolute(Z) + Z_error) + g * (size + error) * (absolute(Z) + Z_error);
      }
      dT_error[i][j] = rounded(std::abs(total(t)), total(t_error) + extra(i, j));
      dT[i][j] = std::abs(total(t)) + dT_error[i][j];
      M[i][j] = std::abs(total(m)), N[i][j] = std::abs(total(other));
    }
  for (std::int64_t i = 0; i < n; ++i) {
    add_rows(M_error[i], i, n, dT, [&](std::int64_t a) { return T_error[a][i]; });
    add_rows(M_error[i], i, n, dT_error, [&](std::int64_t a) { return T[a][i]; });
    for (std::int64_t b = 0; b <= i; ++b) M_error[i][b] = rounded(M[i][b], M_error[i][b]);
    for (std::int64_t j = 0; j < i; ++j) {
      double error = 0;
      for (std::int64_t b = 0; b <= j; ++b) error += M_error[i][b] * T[j][b] + (M[i][b] + M_error[i][b]) * T_error[j][b];
      result[i][j] = sane(error * ProvedUnits::up);
    }
  }
  std::vector<double> error(static_cast<std::size_t>(n));
  for (std::int64_t j = 0; j < n; ++j) { // the other product first
    for (std::int64_t a = j + 1; a < n; ++a) {
      double& of_a = error[static_cast<std::size_t>(a)];
      of_a = 0;
      for (std::int64_t b = 0; b <= j; ++b) of_a += dT_error[a][b] * T[j][b] + dT[a][b] * T_error[j][b];
      of_a = rounded(N[a][j], of_a);
    }
    for (std::int64_t i = j + 1; i < n; ++i) {
      double both = 0;
      for (std::int64_t a = i; a < n; ++a) {
        const double of_a = error[static_cast<std::size_t>(a)];
        both += T[a][i] * of_a + T_error[a][i] * (N[a][j] + of_a);
      }
      result[i][j] = std::max(result[i][j], sane(both * ProvedUnits::up));
    }
  }
  return result;
}

} // namespace kdacheck
