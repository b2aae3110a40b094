// Which intermediate of the exact chunk must have been another for o and the state to become what a kernel wrote?
//
// The first wrong chunk is run again alone, from the exact state at its start, or in the smallest call in which it is wrong. O = qd S + Aqk
// U and S' = e^{G_C} S + kr^T U are linear in what each stage hands on, so "some other U", "some other T" and so on are least-squares
// problems: the stage is the earliest one with which all that was written falls into place. For KDA only.

#include "seen_chunk.hpp"

#include "../../reference/chunk_intermediates.hpp"
#include "../../reference/effective.hpp"
#include "../transform.hpp"

#include <Eigen/Dense>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

using Matrix = Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// What is left of an error once a stage is allowed to differ, as a share of it: below this the stage explains the error.
constexpr double explained = 0.15;
/// Another state at the start has K V numbers to choose and explains much of anything: it has to explain nearly all.
constexpr double explained_by_start = 0.03;
/// Errors up to so many spreads of the contract are no errors.
constexpr double noise = noise_in_spreads;

Matrix matrix(const Digits& digits, std::int64_t rows, std::int64_t columns) {
  return Eigen::Map<const RowMajor>(digits.value.data(), rows, columns);
}
template <class T> Matrix matrix(const std::vector<T>& numbers, std::int64_t rows, std::int64_t columns) {
  return Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(numbers.data(), rows, columns)
      .template cast<double>();
}

double rms(const Matrix& m) { return m.size() > 0 ? m.norm() / std::sqrt(static_cast<double>(m.size())) : 0; }

/// Further value channels, made of the same numbers in another order of tokens and rows: channels are independent of each other, and
/// more of them tell apart what fewer cannot.
Problem widened(const Problem& call, std::int64_t V) {
  Problem wide = call;
  const std::int64_t old = call.shape.V;
  wide.shape.V = V;
  const auto filled = [&](std::vector<float>& tensor, std::int64_t rows) {
    if (tensor.empty()) return;
    const std::vector<float> from = tensor;
    tensor.assign(static_cast<std::size_t>(rows * V), 0.0f);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < V; ++j) {
        const std::int64_t turn = j / old, row = (i + turn * (1 + j % old)) % rows;
        tensor[static_cast<std::size_t>(i * V + j)] = (turn % 2 == 0 ? 1.0f : -1.0f) * from[static_cast<std::size_t>(row * old + j % old)];
      }
  };
  filled(wide.v, call.shape.T * call.shape.HV), filled(wide.initial_state, call.shape.HV * call.shape.K);
  wide.d_o.clear(), wide.d_final_state.clear();
  return wide;
}

/// Spreads of the rows of a chunk's o and of the state after it.
struct Spreads {
  std::vector<double> o, state;
};

/// Those of the call that the chunk was seen in.
Spreads spreads_of(const SeenChunk& seen, const Budget& budget, double sharper) {
  const auto [n, K] = std::pair(seen.chunk.shape.T, seen.chunk.shape.K);
  Spreads spreads;
  for (std::int64_t i = 0; i < n; ++i)
    spreads.o.push_back(budget.output.token[static_cast<std::size_t>((seen.first + i) * seen.call.shape.HV + seen.head)] / sharper);
  for (std::int64_t c = 0; c < K; ++c)
    spreads.state.push_back(budget.output.state_row[static_cast<std::size_t>(seen.head * K + c)] / sharper);
  return spreads;
}

/// A chunk that goes wrong.
struct WrongChunk {
  std::int64_t n, K, V;
  Matrix S, Aqk, T, U, O, end;                   ///< exact
  Matrix wrong_O, wrong_end;                     ///< what was written, less what is exact
  Matrix kr, from_start_to_o, from_start_to_end; ///< [n,K]; [n,K], [K,K]: how the state at the start enters o and the end
  Matrix from_read_to_end;                       ///< [K,K]: the same without what is carried, as an operand of the chunk's products enters
  Eigen::VectorXd o_spread, row_spread;

  WrongChunk(const Problem& problem, const Run& run, const Spreads& spreads) : n(problem.shape.T), K(problem.shape.K), V(problem.shape.V) {
    const ChunkIntermediates exact = chunk_intermediates(problem, n).front();
    S = matrix(exact.start, K, V), Aqk = matrix(exact.Aqk, n, n), T = matrix(exact.T, n, n);
    U = matrix(exact.U, n, V), O = matrix(exact.O, n, V), end = matrix(exact.end, K, V);
    wrong_O = matrix(run.o, n, V) - O;
    wrong_end = matrix(run.final_state, K, V) - end;
    const Matrix G = matrix(exact.G, n, K);
    const Matrix W = matrix(exact.W, n, K);
    Matrix qd(n, K);
    kr = Matrix(n, K);
    for (std::int64_t i = 0; i < n; ++i) {
      const auto token = effective_token<double>(problem, Exactly<double>{problem}, i, 0);
      for (std::int64_t c = 0; c < K; ++c) {
        kr(i, c) = token.k[static_cast<std::size_t>(c)] * std::exp(G(n - 1, c) - G(i, c));
        qd(i, c) = static_cast<double>(problem.options.scale) * token.q[static_cast<std::size_t>(c)] * std::exp(G(i, c));
      }
    }
    from_start_to_o = qd - Aqk * W;
    from_start_to_end = from_read_to_end = -kr.transpose() * W;
    for (std::int64_t c = 0; c < K; ++c) from_start_to_end(c, c) += std::exp(G(n - 1, c));
    const auto spread = [](const std::vector<double>& sigma, double size) {
      Eigen::VectorXd result(static_cast<std::int64_t>(sigma.size()));
      for (std::size_t i = 0; i < sigma.size(); ++i) result[static_cast<std::int64_t>(i)] = std::max(sigma[i], 1e-12 * size + 1e-38);
      return result;
    };
    o_spread = spread(spreads.o, rms(O)), row_spread = spread(spreads.state, rms(end));
  }

  /// Largest error of a row, in spreads.
  static double excess(const Matrix& error, const Eigen::VectorXd& spread) {
    double worst = 0;
    for (std::int64_t i = 0; i < error.rows(); ++i) worst = std::max(worst, rms(error.row(i)) / spread[i]);
    return worst;
  }

  /// What remains, in spreads, of the errors of o and of the end once x is best in error of o = to_o x, of end = to_end x.
  std::pair<double, Matrix> best(const Matrix& to_o, const Matrix& to_end) const {
    Matrix A(n + K, to_o.cols()), B(n + K, V);
    for (std::int64_t i = 0; i < n; ++i) A.row(i) = to_o.row(i) / o_spread[i], B.row(i) = wrong_O.row(i) / o_spread[i];
    for (std::int64_t c = 0; c < K; ++c) A.row(n + c) = to_end.row(c) / row_spread[c], B.row(n + c) = wrong_end.row(c) / row_spread[c];
    const Matrix x = A.completeOrthogonalDecomposition().solve(B);
    const Matrix left = B - A * x;
    double worst = 0;
    for (std::int64_t i = 0; i < left.rows(); ++i) worst = std::max(worst, rms(left.row(i)));
    return {worst, x};
  }
  std::pair<double, Matrix> best_dU() const { return best(Aqk, kr.transpose()); }
  double left_by_another_start() const { return best(from_start_to_o, from_start_to_end).first; }
  double left_by_another_read() const { return best(from_start_to_o, from_read_to_end).first; }

  /// dU as a strictly lower dT times Z = T^{-1} U: the share that is left, and dT.
  std::pair<double, Matrix> best_dT(const Matrix& dU) const {
    const Matrix Z = T.triangularView<Eigen::Lower>().solve(U);
    Matrix dT = Matrix::Zero(n, n), left = dU;
    for (std::int64_t i = 1; i < n; ++i) {
      const Matrix A = Z.topRows(i).transpose(); // [V, i]
      const Eigen::VectorXd x = A.completeOrthogonalDecomposition().solve(Eigen::VectorXd(dU.row(i).transpose()));
      dT.row(i).head(i) = x.transpose();
      left.row(i) -= (A * x).transpose();
    }
    return {dU.norm() > 0 ? left.norm() / dU.norm() : 1.0, dT};
  }

  /// The share of o's error that lies outside the span of the rows of U that a token may read, or of all of them.
  double outside_of_reads(bool later_too = false) const {
    Matrix left = wrong_O;
    for (std::int64_t i = 0; i < n; ++i) {
      const Matrix A = U.topRows(later_too ? n : i + 1).transpose();
      const Eigen::VectorXd y = wrong_O.row(i).transpose();
      left.row(i) -= (A * A.completeOrthogonalDecomposition().solve(y)).transpose();
    }
    return wrong_O.norm() > 0 ? left.norm() / wrong_O.norm() : 1.0;
  }

  /// The largest row that is left, in spreads, once U and the scores that read it are others: every row of o errs by Aqk dU plus
  /// anything in the span of the rows of U that it may read.
  double left_by_other_scores() const {
    const std::int64_t unknowns = n * V;
    if (unknowns > 700 || V < n + 4) return std::numeric_limits<double>::infinity();
    Matrix A = Matrix::Zero((n + K) * V, unknowns);
    Eigen::VectorXd b((n + K) * V);
    for (std::int64_t i = 0; i < n; ++i) {
      const Matrix Q = Eigen::ColPivHouseholderQR<Matrix>(Matrix(U.topRows(i + 1).transpose())).householderQ();
      const Matrix kept = Q.rightCols(V - i - 1), out = kept * kept.transpose() / o_spread[i];
      for (std::int64_t m = 0; m <= i; ++m) A.block(i * V, m * V, V, V) = Aqk(i, m) * out;
      b.segment(i * V, V) = out * wrong_O.row(i).transpose();
    }
    for (std::int64_t c = 0; c < K; ++c) {
      for (std::int64_t m = 0; m < n; ++m) A.block((n + c) * V, m * V, V, V) = Matrix::Identity(V, V) * (kr(m, c) / row_spread[c]);
      b.segment((n + c) * V, V) = wrong_end.row(c).transpose() / row_spread[c];
    }
    const Matrix normal = A.transpose() * A;
    const Eigen::VectorXd x = normal.completeOrthogonalDecomposition().solve(A.transpose() * b), left = b - A * x;
    double worst = 0;
    for (std::int64_t i = 0; i < n + K; ++i) worst = std::max(worst, left.segment(i * V, V).norm() / std::sqrt(static_cast<double>(V)));
    return worst;
  }
};

/// In no token are more than a quarter of the channels wrong: what a stage hands on is wrong in all of them.
bool errs_in_single_channels(const WrongChunk& chunk) {
  if (chunk.V < 4) return false;
  for (std::int64_t i = 0; i < chunk.n; ++i) {
    const double largest = chunk.wrong_O.row(i).cwiseAbs().maxCoeff();
    if (!(largest / std::sqrt(static_cast<double>(chunk.V)) > noise * chunk.o_spread[i])) continue;
    if (4 * (chunk.wrong_O.row(i).cwiseAbs().array() > 0x1p-10 * largest).count() > chunk.V) return false;
  }
  return true;
}

/// Only o is wrong: by what it reads (scores), or in the last step.
StageOpinion of_output(const WrongChunk& chunk) {
  if (errs_in_single_channels(chunk)) return says(Stage::output, 0.6, "only o is wrong, in single channels");
  double parallel = 0; // how much of the error is a multiple of o, token by token
  for (std::int64_t i = 0; i < chunk.n; ++i) {
    const double dot = chunk.wrong_O.row(i).dot(chunk.O.row(i)), size = chunk.O.row(i).squaredNorm();
    if (size > 0) parallel += dot * dot / size;
  }
  const double share = parallel / chunk.wrong_O.squaredNorm();
  if (share > 1 - explained && chunk.n > 1) return says(Stage::output, 0.8 * share, "only o is wrong, by a factor in every token");
  const bool testable = chunk.V >= chunk.n + 4;
  const double outside = testable ? chunk.outside_of_reads() : 1.0;
  if (testable && outside < explained)
    return says(Stage::scores, 0.7 * (1 - outside), fmt::format("only o is wrong, and all but {:.2f} of it by what is read of U", outside));
  if (testable && chunk.outside_of_reads(true) < explained)
    return says(Stage::scores, 0.6, "only o is wrong, by what is read of later rows of U");
  return says(Stage::output, testable ? 0.5 : 0.3, "only o is wrong");
}

/// o and the state are wrong as another U would make them.
StageOpinion of_U(const WrongChunk& chunk, const Matrix& dU, double left) {
  const std::string how = fmt::format("o and the state agree on another U (all but {:.2f})", left);
  if (chunk.n < 2) return says(Stage::residual, 0.4, how);
  const auto [outside, dT] = chunk.best_dT(dU);
  if (!(outside < explained)) return says(Stage::residual, 0.8, how + fmt::format("; no T gives it: {:.2f} is left", outside));
  if (chunk.V < chunk.n + 4) return unclear(how + "; too few channels to tell T from the residual");
  const Matrix left_of_L = (chunk.T + dT).triangularView<Eigen::StrictlyLower>(), of_L = chunk.T.triangularView<Eigen::StrictlyLower>();
  if (left_of_L.norm() < 0.02 * of_L.norm()) return says(Stage::residual, 0.5, how + "; no token erases what earlier ones wrote");
  // T = I - L + L^2 - ...: beside the diagonal it is -L, so an error of the inverse alone begins one diagonal further out.
  double beside = 0, beyond = 0;
  for (std::int64_t i = 1; i < chunk.n; ++i) {
    beside = std::max(beside, std::abs(dT(i, i - 1)));
    for (std::int64_t j = 0; j + 1 < i; ++j) beyond = std::max(beyond, std::abs(dT(i, j)));
  }
  if (beside < explained * beyond) return says(Stage::inverse, 1 - beside / beyond, how + "; T is wrong, L is not");
  return says(Stage::scores, 0.6, how + "; L itself is wrong");
}

/// The same chunk from a state where it had none: what reads the scores alone reads no state, what comes with the query reads both.
StageOpinion with_a_state(const Experiment& with, const SeenChunk& seen, StageOpinion opinion) {
  Problem call = seen.call;
  if (!seen.alone() || !call.initial_state.empty() || !with.kernel.contract.initial_state || call.v.empty()) return opinion;
  const Shape& s = call.shape;
  call.initial_state.resize(static_cast<std::size_t>(s.HV * s.K * s.V));
  for (std::size_t i = 0; i < call.initial_state.size(); ++i) // numbers of the same size, in another order
    call.initial_state[i] = (i % 3 == 0 ? -1.0f : 1.0f) * call.v[(i * 7 + i / static_cast<std::size_t>(s.V)) % call.v.size()];
  const auto from_state = seen_in(with, std::move(call), seen.head, seen.first, seen.chunk.shape.T, "");
  if (!from_state) return opinion;
  const auto budget = with.judge.forward_budget(with.kernel.contract, from_state->call);
  const WrongChunk chunk(from_state->chunk, from_state->run, spreads_of(*from_state, *budget, with.sharper));
  if (!chunk.wrong_O.allFinite() || !chunk.wrong_end.allFinite()) return opinion;
  if (WrongChunk::excess(chunk.wrong_end, chunk.row_spread) > noise || chunk.V < chunk.n + 4) return opinion;
  if (chunk.outside_of_reads() < explained || chunk.outside_of_reads(true) < explained) return opinion;
  return says(Stage::output, 0.6, "only o is wrong, and from a state that it reads by more than what is read of U");
}

/// The same call without decay is right: the decay is to blame.
bool right_without_decay(const Experiment& with, Problem problem) {
  if (problem.options.gate == GateForm::absent) return false;
  problem.options.gate = GateForm::log_decay;
  problem.A_log.clear(), problem.dt_bias.clear();
  std::ranges::fill(problem.g, 0.0f);
  return with.fails(problem) == false;
}

/// What the chunks before hand on is wrong already, though nothing of o is.
bool handed_on_wrong(const Experiment& with, const SeenChunk& seen) {
  if (seen.first == 0) return false;
  Choice before = everything(seen.call);
  before.pieces.front().tokens = counted(seen.first);
  const Problem earlier = chosen(seen.call, before);
  if (!with.fails(earlier).value_or(false)) return false;
  const Run run = with.run(earlier);
  const auto truth = with.judge.forward_truth(earlier);
  const auto budget = with.judge.forward_budget(with.kernel.contract, earlier);
  if (run.final_state.size() != truth->final_state.value.size()) return false;
  const std::int64_t K = earlier.shape.K, V = earlier.shape.V;
  for (std::int64_t row = seen.head * K; row < (seen.head + 1) * K; ++row) {
    double sum = 0;
    for (auto i = static_cast<std::size_t>(row * V); i < static_cast<std::size_t>((row + 1) * V); ++i)
      sum += std::pow(static_cast<double>(run.final_state[i]) - truth->final_state.value[i], 2);
    if (!(std::sqrt(sum / static_cast<double>(V)) <= noise * (budget->output.state_row[static_cast<std::size_t>(row)] + 1e-38)))
      return true;
  }
  return false;
}

/// Stages hand on whole rows: what is not finite in single channels of o, the state being right, was not finite when it was written.
StageOpinion of_not_finite(const WrongChunk& chunk) {
  const char* why = "what was written is not finite";
  if (!chunk.wrong_end.allFinite()) {
    if (!chunk.wrong_O.allFinite() || WrongChunk::excess(chunk.wrong_O, chunk.o_spread) > noise) return unclear(why);
    for (std::int64_t c = 0; c < chunk.K; ++c)
      if (const auto bad = (!chunk.wrong_end.row(c).array().isFinite()).count(); bad > 0 && 2 * bad > chunk.V) return unclear(why);
    return says(Stage::state_carry, 0.6, "o is right, the state that is handed on is not finite in single channels");
  }
  if (WrongChunk::excess(chunk.wrong_end, chunk.row_spread) > noise) return unclear(why);
  for (std::int64_t i = 0; i < chunk.n; ++i)
    if (const auto bad = (!chunk.wrong_O.row(i).array().isFinite()).count(); bad > 0 && 2 * bad > chunk.V) return unclear(why);
  return says(Stage::output, 0.6, "only o is not finite, in single channels");
}

/// The stage whose error explains both o and the state after the chunk.
StageOpinion of_chunk(const Experiment& with, const SeenChunk& seen) {
  if (seen.run.final_state.empty()) return unclear("the kernel gives no final state");
  const auto budget = with.judge.forward_budget(with.kernel.contract, seen.call);
  const WrongChunk chunk(seen.chunk, seen.run, spreads_of(seen, *budget, with.sharper));
  if (!chunk.wrong_O.allFinite() || !chunk.wrong_end.allFinite()) return of_not_finite(chunk);
  const double of_o = WrongChunk::excess(chunk.wrong_O, chunk.o_spread), of_state = WrongChunk::excess(chunk.wrong_end, chunk.row_spread);
  if (of_o <= noise && of_state <= noise) return unclear("the error is too near to what the contract allows");
  if (of_state <= noise) {
    StageOpinion opinion = of_output(chunk);
    return opinion.stage == Stage::scores ? with_a_state(with, seen, std::move(opinion)) : opinion;
  }
  if (of_o <= noise) return says(Stage::state_carry, 0.8, "o is right, the state that is handed on is not");
  const auto [left, dU] = chunk.best_dU();
  const double share = left / std::max(of_o, of_state);
  const double by_start = chunk.left_by_another_start() / std::max(of_o, of_state);
  if (by_start < explained_by_start && by_start < share && chunk.n > 1)
    return says(Stage::state_carry, 0.9, fmt::format("o and the state agree on another state at the start (all but {:.2f})", by_start));
  if (left <= noise || share < explained) return of_U(chunk, dU, share);
  // With K >= 2 n numbers a column another state would explain any o and any U.
  if (const double by_read = chunk.left_by_another_read() / std::max(of_o, of_state); 2 * chunk.n > chunk.K && by_read < explained_by_start)
    return says(Stage::state_carry, 0.8, fmt::format("o and the state agree on another state that is read (all but {:.2f})", by_read));
  if (right_without_decay(with, seen.call))
    return says(Stage::gate_sum, 0.7, "no other U gives both o and the state; without decay both are right");
  if (const double by_scores = chunk.left_by_other_scores(); by_scores <= noise || by_scores < explained * std::max(of_o, of_state))
    return says(Stage::scores, 0.6, "another U and other scores that read it give both o and the state");
  return says(Stage::inputs, 0.4, "no other U gives both o and the state, with decay or without");
}

/// Of a chunk that is right in every call of its sequence alone: the last one's o and state are seen in the whole call too.
StageOpinion of_whole_call(const Experiment& with, const Problem& problem, const Run& whole, std::int64_t sequence, std::int64_t head,
                           std::int64_t first, std::int64_t count) {
  const char* where = "the sequence alone is right";
  const bool state_seen = first + count == sequences(problem)[static_cast<std::size_t>(sequence)].length && !whole.final_state.empty();
  const Problem by_itself = chunk_alone(problem, sequence, head, first, count);
  Choice part = alone(problem, sequence);
  part.pieces.front().tokens = counted(count, first);
  part.value_heads = {head}, part.key_heads = {head / (problem.shape.HV / problem.shape.H)};
  const auto budget = with.judge.forward_budget(with.kernel.contract, by_itself);
  Run written = chosen(whole, problem, part);
  if (!state_seen) { // only o tells
    const auto truth = with.judge.forward_truth(by_itself);
    written.final_state.assign(truth->final_state.value.begin(), truth->final_state.value.end());
  }
  const WrongChunk chunk(by_itself, written, {budget->output.token, budget->output.state_row});
  if (!chunk.wrong_O.allFinite() || !chunk.wrong_end.allFinite()) return unclear("what was written is not finite");
  const double of_o = WrongChunk::excess(chunk.wrong_O, chunk.o_spread), of_state = WrongChunk::excess(chunk.wrong_end, chunk.row_spread);
  if (of_state <= noise && of_o > noise && errs_in_single_channels(chunk))
    return says(Stage::output, 0.5, fmt::format("{}; in the call only o is wrong, in single channels", where));
  if (!state_seen) return unclear(where);
  const double size = std::max(of_o, of_state);
  const double left = chunk.left_by_another_start() / size;
  if (left < explained || left * size < noise)
    return says(Stage::state_carry, 0.8,
                fmt::format("{}; another state at its start gives what its last chunk is (all but {:.2f})", where, left));
  return says(Stage::inputs, 0.6, fmt::format("{}; no state at its start gives what its last chunk is ({:.2f} is left)", where, left));
}

/// Of the general form: whether it is o or the state that is wrong.
StageOpinion of_general_form(const Experiment& with, const Problem& problem, const Run& whole) {
  const auto truth = with.judge.forward_truth(problem);
  if (whole.final_state.size() != truth->final_state.value.size() || whole.o.size() != truth->o.value.size())
    return unclear("the kernel gives no final state");
  Run exact_o = whole, exact_state = whole;
  for (std::size_t i = 0; i < whole.o.size(); ++i)
    exact_o.o[i] = round_to(with.kernel.contract.output, static_cast<float>(truth->o.value[i]));
  exact_state.final_state.assign(truth->final_state.value.begin(), truth->final_state.value.end());
  if (!is_failure(with.judged(problem, exact_state).verdict)) return says(Stage::state_carry, 0.7, "o is right, the final state is not");
  if (!is_failure(with.judged(problem, exact_o).verdict)) return says(Stage::output, 0.4, "only o is wrong");
  return unclear("o and the state are wrong, and the general form is not taken apart any further");
}

} // namespace

StageOpinion stage_by_intermediates(const Experiment& with, const Problem& problem, const Run& whole, const Place& first_wrong,
                                    const std::optional<SeenChunk>& seen) {
  if (problem.options.rule != Rule::kda) return of_general_form(with, problem, whole);
  const auto at = chunk_of(with.kernel.contract, problem, first_wrong);
  if (!at) return says(Stage::state_carry, 0.9, "a sequence without tokens has the wrong final state");
  if (!seen) {
    if (at->first > 0 && !with.kernel.contract.initial_state) return unclear("the kernel takes no initial state to start the chunk from");
    return of_whole_call(with, problem, whole, at->sequence, at->head, at->first, at->count);
  }
  if (handed_on_wrong(with, *seen))
    return says(Stage::state_carry, 0.8, seen->where + "; the state handed on to it is wrong though o before it is right");
  const std::int64_t wide = std::max(seen->call.shape.V, at->count + 8);
  std::optional<SeenChunk> wider;
  if (wide != seen->call.shape.V) wider = seen_in(with, widened(seen->call, wide), seen->head, seen->first, at->count, seen->where);
  StageOpinion opinion = of_chunk(with, wider ? *wider : *seen);
  if (seen->alone()) return opinion;
  opinion.confidence *= 0.8;
  opinion.grounds = seen->where + "; " + opinion.grounds;
  return opinion;
}

} // namespace kdacheck
