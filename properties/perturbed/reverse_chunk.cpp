#include "reverse_chunk.hpp"

#include "../../reference/effective.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace kdacheck {

ReverseInputs reverse_inputs(const Problem& chunk) {
  const auto [n, K, V] = std::tuple(chunk.shape.T, chunk.shape.K, chunk.shape.V);
  ReverseInputs in{.q = Matrix64(n, K),
                   .k = Matrix64(n, K),
                   .G = Matrix64(n, K),
                   .v = Matrix64(n, V),
                   .d_o = Matrix64::Zero(n, V),
                   .beta = Eigen::VectorXd(n),
                   .S = Matrix64::Zero(K, V),
                   .d_end = Matrix64::Zero(K, V),
                   .scale = static_cast<double>(chunk.options.scale)};
  for (std::int64_t i = 0; i < n; ++i) {
    const auto token = effective_token<double>(chunk, Exactly<double>{chunk}, i, 0);
    for (std::int64_t c = 0; c < K; ++c) {
      const auto at = static_cast<std::size_t>(c);
      in.q(i, c) = in.scale * token.q[at], in.k(i, c) = token.k[at];
      in.G(i, c) = (i > 0 ? in.G(i - 1, c) : 0) + std::max(token.log_decay[at], -1e30);
    }
    for (std::int64_t j = 0; j < V; ++j) {
      in.v(i, j) = token.v[static_cast<std::size_t>(j)];
      if (!chunk.d_o.empty()) in.d_o(i, j) = static_cast<double>(chunk.d_o[static_cast<std::size_t>(i * V + j)]);
    }
    in.beta[i] = token.beta;
  }
  for (std::int64_t c = 0; c < K; ++c)
    for (std::int64_t j = 0; j < V; ++j) {
      const auto at = static_cast<std::size_t>(c * V + j);
      if (!chunk.initial_state.empty()) in.S(c, j) = static_cast<double>(chunk.initial_state[at]);
      if (!chunk.d_final_state.empty()) in.d_end(c, j) = static_cast<double>(chunk.d_final_state[at]);
    }
  return in;
}

ReverseOutputs reverse_chunk(const ReverseInputs& in, const std::function<void(Midway, Matrix64&)>& change) {
  const auto n = in.q.rows(), K = in.q.cols();
  const auto passed = [&](Midway where, Matrix64 quantity) {
    change(where, quantity);
    return quantity;
  };
  const Matrix64 up = in.G.array().exp();
  const Matrix64 to_end = (in.G.row(n - 1).replicate(n, 1) - in.G).array().exp();
  const Eigen::VectorXd whole = in.G.row(n - 1).transpose().array().exp();
  const Matrix64 kd = in.k.cwiseProduct(up), qd = in.q.cwiseProduct(up), kr = in.k.cwiseProduct(to_end);
  const auto pair = [&](Eigen::Index i, Eigen::Index j) { return (in.G.row(i) - in.G.row(j)).array().exp().matrix().eval(); };
  Matrix64 Akk = Matrix64::Zero(n, n), Aqk = Matrix64::Zero(n, n);
  for (Eigen::Index i = 0; i < n; ++i)
    for (Eigen::Index j = 0; j <= i; ++j) {
      const auto kE = in.k.row(j).cwiseProduct(pair(i, j)).eval();
      if (j < i) Akk(i, j) = in.k.row(i).dot(kE);
      Aqk(i, j) = in.q.row(i).dot(kE);
    }
  const Matrix64 I_L = Matrix64::Identity(n, n) + in.beta.asDiagonal() * Akk;
  const Matrix64 exact_T = I_L.triangularView<Eigen::Lower>().solve(Matrix64::Identity(n, n));
  const Matrix64 U = exact_T * (in.beta.asDiagonal() * (in.v - kd * in.S));

  const Matrix64 S = passed(Midway::read_state, in.S);
  const Matrix64 dU_reads = passed(Midway::dU_of_reads, Aqk.transpose() * in.d_o), dU_end = passed(Midway::dU_of_end, kr * in.d_end);
  const Matrix64 dU = passed(Midway::dU, dU_reads + dU_end);
  const Matrix64 T = passed(Midway::inverse, exact_T);
  const Matrix64 dZ = passed(Midway::dZ, T.transpose() * dU);
  const Matrix64 weighted = in.beta.asDiagonal() * dZ;
  ReverseOutputs out;
  out.dv = passed(Midway::dv, weighted);
  const Matrix64 dL = (-dZ * U.transpose()).triangularView<Eigen::StrictlyLower>();
  out.dbeta = passed(Midway::dbeta, passed(Midway::dbeta_of_own, dZ.cwiseProduct(in.v - kd * S).rowwise().sum()) +
                                        passed(Midway::dbeta_of_keys, dL.cwiseProduct(Akk).rowwise().sum()));
  const Matrix64 dAkk = passed(Midway::dAkk, in.beta.asDiagonal() * dL);
  const Matrix64 dAqk = passed(Midway::dAqk, Matrix64((in.d_o * U.transpose()).triangularView<Eigen::Lower>()));

  Matrix64 q_keys = Matrix64::Zero(n, K), rows = q_keys, columns = q_keys, reads = q_keys, q_own(n, K), k_own(n, K);
  for (Eigen::Index i = 0; i < n; ++i) {
    for (Eigen::Index j = 0; j < i; ++j) {
      const auto E = pair(i, j);
      q_keys.row(i) += dAqk(i, j) * in.k.row(j).cwiseProduct(E);
      rows.row(i) += dAkk(i, j) * in.k.row(j).cwiseProduct(E);
      columns.row(j) += dAkk(i, j) * in.k.row(i).cwiseProduct(E);
      reads.row(j) += dAqk(i, j) * in.q.row(i).cwiseProduct(E);
    }
    q_own.row(i) = dAqk(i, i) * in.k.row(i), k_own.row(i) = dAqk(i, i) * in.q.row(i);
  }
  const Matrix64 q_state = passed(Midway::q_of_state, up.cwiseProduct(in.d_o * S.transpose()));
  q_keys = passed(Midway::q_of_keys, q_keys);
  Matrix64 erase = passed(Midway::k_of_erase, -up.cwiseProduct(weighted * S.transpose()));
  Matrix64 end = passed(Midway::k_of_end, to_end.cwiseProduct(U * in.d_end.transpose()));
  rows = passed(Midway::k_of_rows, rows), columns = passed(Midway::k_of_columns, columns), reads = passed(Midway::k_of_reads, reads);

  const Matrix64 kept = whole.asDiagonal() * in.d_end;
  Matrix64 dG = in.q.cwiseProduct(q_state + q_keys) + in.k.cwiseProduct(erase + rows - columns - reads - end);
  dG.row(n - 1) += in.k.cwiseProduct(end).colwise().sum();
  dG.row(n - 1) += passed(Midway::dg_end, S.cwiseProduct(kept).rowwise().sum().transpose());
  for (Eigen::Index i = n - 2; i >= 0; --i) dG.row(i) += dG.row(i + 1);
  out.dg = passed(Midway::dg, dG);

  erase = passed(Midway::k_of_erase_in_dk, erase), rows = passed(Midway::k_of_rows_in_dk, rows);
  columns = passed(Midway::k_of_columns_in_dk, columns), reads = passed(Midway::k_of_reads_in_dk, reads);
  end = passed(Midway::k_of_end_in_dk, end);
  q_own = passed(Midway::q_of_own, q_own), k_own = passed(Midway::k_of_own, k_own);
  out.dq = passed(Midway::dq, in.scale * (q_state + q_keys + q_own));
  out.dk = passed(Midway::dk, erase + rows + columns + reads + end + k_own);
  out.dS = passed(Midway::dS, kept + qd.transpose() * in.d_o - kd.transpose() * weighted);
  return out;
}

} // namespace kdacheck
