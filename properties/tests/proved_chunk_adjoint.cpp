#include "../proved_chunk_adjoint.hpp"
#include "../proved_bound.hpp"
#include "../proved_chunk.hpp"
#include "../proved_ratio.hpp"
#include "../recipe.hpp"
#include "../transform.hpp"
#include "drawn_problem.hpp"
#include "pushed.hpp"

#include "../../kernels/faults/correct_variants.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <numeric>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

using Matrix = std::vector<double>;

/// Direction in which each kind of step errs: -1, 0 (exact) or 1.
struct Push {
  double operand = 0, score = 0, exponential = 0, cumsum = 0, solve = 0, accumulate = 0, state = 0, adjoint = 0, single = 0, stored = 0;
  static constexpr std::array members{&Push::operand,    &Push::score, &Push::exponential, &Push::cumsum, &Push::solve,
                                      &Push::accumulate, &Push::state, &Push::adjoint,     &Push::single, &Push::stored};
};

struct Gradients {
  Matrix q, k, v, g, beta, state;
};

/// The reverse mode of the chunk algebra of one head in fp64, erring as much as a contract allows. `split`: dbeta and dL by the other
/// of the ways that the bound covers.
class PushedChunks {
public:
  PushedChunks(const Contract& contract, const Head& head, const Push& push, bool split)
      : contract_(contract), head_(head), push_(push), split_(split), K(head.K), V(head.V) {}

  Gradients run(const Problem& problem, std::int64_t length) {
    const std::int64_t T = head_.tokens;
    Gradients out;
    for (auto* rows : {&out.q, &out.k, &out.g}) rows->assign(at(T * K), 0.0);
    out.v.assign(at(T * V), 0.0), out.beta.assign(at(T), 0.0);
    std::vector<Matrix> states{head_.state};
    for (std::int64_t first = 0; first < T; first += length) {
      forward(first, std::min(length, T - first), states.back());
      states.push_back(next_);
    }
    Matrix dS(problem.d_final_state.begin(), problem.d_final_state.end());
    for (std::int64_t index = static_cast<std::int64_t>(states.size()) - 2; index >= 0; --index) {
      const std::int64_t first = index * length;
      const Matrix S = as_read(states[at(index)]);
      forward(first, std::min(length, T - first), S);
      reverse(problem, first, S, dS, out);
    }
    out.state = dS;
    return out;
  }

private:
  double rounded(Format format, double push, double x) const { return x * (1 + push * unit_roundoff(format)); }
  double operand(double x) const { return rounded(contract_.operands, push_.operand, x); }
  double score(double x) const { return rounded(contract_.scores, push_.score, x); }
  double single(double x) const { return rounded(Format::fp32, push_.single, x); }
  /// A stored state or cotangent as gradients read it.
  Matrix as_read(Matrix from) const {
    if (unit_roundoff(contract_.gradient_state) > 0x1p-24)
      for (double& x : from) x = rounded(contract_.gradient_state, push_.stored, x);
    return from;
  }
  double exponential(double x) const { return std::exp(x) * (1 + push_.exponential * 2 * contract_.exp_ulp * 0x1p-24); }
  template <class Term> double sum(std::int64_t from, std::int64_t to, Term&& term) const {
    double total = 0, size = 0;
    for (std::int64_t i = from; i < to; ++i) {
      const double x = term(i);
      total += x, size += std::abs(x);
    }
    return total + push_.accumulate * static_cast<double>(to - from) * unit_roundoff(contract_.accumulate) * size;
  }

  /// e^{G_i - G_j}, split at the row's block or between.
  std::pair<double, double> split(std::int64_t i, std::int64_t j, std::int64_t c) const {
    const std::int64_t anchor = std::max(i / 16 * 16, j);
    return {exponential(G_[at(i * K + c)] - G_[at(anchor * K + c)]), exponential(G_[at(anchor * K + c)] - G_[at(j * K + c)])};
  }
  double key(std::int64_t i, std::int64_t c) const { return head_.k[at((first_ + i) * K + c)]; }
  double query(std::int64_t i, std::int64_t c) const { return head_.scale * head_.q[at((first_ + i) * K + c)]; }
  double beta(std::int64_t i) const { return head_.beta[at(first_ + i)]; }

  void forward(std::int64_t first, std::int64_t n, const Matrix& S) {
    first_ = first, n_ = n;
    for (auto* m : {&G_, &kd_, &qd_, &kr_}) m->assign(at(n * K), 0.0);
    for (auto* m : {&A_, &Akk_, &T_}) m->assign(at(n * n), 0.0);
    for (auto* m : {&R_, &U_, &Z_}) m->assign(at(n * V), 0.0);
    Matrix L(A_);
    for (std::int64_t c = 0; c < K; ++c) {
      double G = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        G += head_.g[at((first + i) * K + c)];
        G_[at(i * K + c)] = G * (1 + push_.cumsum * static_cast<double>(i) * 0x1p-24);
      }
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i * K + c);
        kd_[entry] = operand(key(i, c) * exponential(G_[entry])), qd_[entry] = operand(query(i, c) * exponential(G_[entry]));
        kr_[entry] = operand(key(i, c) * exponential(G_[at((n - 1) * K + c)] - G_[entry]));
      }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        const auto pair = [&](double x, std::int64_t c) {
          return score(x * split(i, j, c).first) * score(key(j, c) * split(i, j, c).second);
        };
        A_[at(i * n + j)] = operand(sum(0, K, [&](std::int64_t c) { return pair(query(i, c), c); }));
        if (j == i) continue;
        Akk_[at(i * n + j)] = sum(0, K, [&](std::int64_t c) { return pair(key(i, c), c); });
        L[at(i * n + j)] = rounded(contract_.solve, push_.solve, beta(i) * Akk_[at(i * n + j)]);
      }
    for (std::int64_t i = 0; i < n; ++i) {
      T_[at(i * n + i)] = 1;
      for (std::int64_t j = 0; j < i; ++j) {
        double total = 0, size = 0;
        for (std::int64_t m = j; m < i; ++m) {
          const double x = L[at(i * n + m)] * T_[at(m * n + j)];
          total -= x, size += std::abs(x);
        }
        T_[at(i * n + j)] = total + push_.solve * static_cast<double>(i - j) * unit_roundoff(contract_.solve) * size;
      }
    }
    for (double& x : T_) x = operand(x);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j) {
        R_[at(i * V + j)] =
            head_.v[at((first + i) * V + j)] - sum(0, K, [&](std::int64_t c) { return kd_[at(i * K + c)] * operand(S[at(c * V + j)]); });
        Z_[at(i * V + j)] = operand(beta(i) * R_[at(i * V + j)]);
      }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        U_[at(i * V + j)] = operand(sum(0, i + 1, [&](std::int64_t m) { return T_[at(i * n + m)] * Z_[at(m * V + j)]; }));
    next_ = S;
    const bool stored = (first + n) % contract_.chunk == 0 || first + n == head_.tokens;
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) {
        double& s = next_[at(c * V + j)];
        s = exponential(G_[at((n - 1) * K + c)]) * s + sum(0, n, [&](std::int64_t i) { return kr_[at(i * K + c)] * U_[at(i * V + j)]; });
        s = rounded(stored ? contract_.state : Format::fp32, push_.state, s);
      }
  }

  void reverse(const Problem& problem, std::int64_t first, const Matrix& S, Matrix& dS, Gradients& out) {
    const std::int64_t n = n_;
    const Matrix read = as_read(dS);
    const auto d_o = [&](std::int64_t i, std::int64_t j) { return operand(problem.d_o[at((first + i) * V + j)]); };
    const auto over_V = [&](auto&& term) { return sum(0, V, term); };
    Matrix dU(at(n * V)), dZ(dU), W(dU), P(at(n * n)), Q(P), dL(P), row_q(at(n * K)), row_k(row_q), column(row_q), end(row_q);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        dU[at(i * V + j)] = operand(sum(i, n, [&](std::int64_t m) { return A_[at(m * n + i)] * d_o(m, j); }) +
                                    sum(0, K, [&](std::int64_t c) { return kr_[at(i * K + c)] * operand(read[at(c * V + j)]); }));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j) {
        double& z = dZ[at(i * V + j)];
        z = sum(i, n, [&](std::int64_t m) { return T_[at(m * n + i)] * dU[at(m * V + j)]; });
        W[at(i * V + j)] = operand(out.v[at((first + i) * V + j)] = single(beta(i) * z));
        if (!split_) z = operand(z);
      }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        P[at(i * n + j)] = score(over_V([&](std::int64_t v) { return d_o(i, v) * U_[at(j * V + v)]; }));
        if (j == i) continue;
        dL[at(i * n + j)] = -over_V([&](std::int64_t v) { return operand(dZ[at(i * V + v)]) * U_[at(j * V + v)]; });
      }
    if (split_) {
      Matrix dT(P), M(P);
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j <= i; ++j)
          dT[at(i * n + j)] = operand(over_V([&](std::int64_t v) { return dU[at(i * V + v)] * Z_[at(j * V + v)]; }));
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t b = 0; b <= i; ++b)
          M[at(i * n + b)] = operand(sum(i, n, [&](std::int64_t a) { return T_[at(a * n + i)] * dT[at(a * n + b)]; }));
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < i; ++j)
          dL[at(i * n + j)] = -sum(0, j + 1, [&](std::int64_t b) { return M[at(i * n + b)] * T_[at(j * n + b)]; });
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < i; ++j) Q[at(i * n + j)] = score(beta(i) * dL[at(i * n + j)]);
    for (std::int64_t i = 0; i < n; ++i) {
      double& d = out.beta[at(first + i)];
      if (split_)
        d = over_V([&](std::int64_t v) { return dZ[at(i * V + v)] * R_[at(i * V + v)]; }) +
            sum(0, i, [&](std::int64_t m) { return operand(dL[at(i * n + m)]) * operand(Akk_[at(i * n + m)]); });
      else
        d = over_V([&](std::int64_t v) {
          return dZ[at(i * V + v)] *
                 (R_[at(i * V + v)] - sum(0, i, [&](std::int64_t m) { return Akk_[at(i * n + m)] * U_[at(m * V + v)]; }));
        });
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const double in = exponential(G_[at(i * K + c)]), rest = exponential(G_[at((n - 1) * K + c)] - G_[at(i * K + c)]);
        row_q[at(i * K + c)] = single(in * over_V([&](std::int64_t v) { return d_o(i, v) * operand(S[at(c * V + v)]); }));
        row_k[at(i * K + c)] = -single(in * over_V([&](std::int64_t v) { return W[at(i * V + v)] * operand(S[at(c * V + v)]); }));
        end[at(i * K + c)] = single(rest * over_V([&](std::int64_t v) { return U_[at(i * V + v)] * operand(read[at(c * V + v)]); }));
      }
    column = end;
    for (std::int64_t c = 0; c < K; ++c) {
      for (std::int64_t i = 0; i < n; ++i) {
        row_q[at(i * K + c)] +=
            sum(0, i, [&](std::int64_t j) { return P[at(i * n + j)] * split(i, j, c).first * score(key(j, c) * split(i, j, c).second); });
        row_k[at(i * K + c)] +=
            sum(0, i, [&](std::int64_t j) { return Q[at(i * n + j)] * split(i, j, c).first * score(key(j, c) * split(i, j, c).second); });
        column[at(i * K + c)] += sum(i + 1, n, [&](std::int64_t m) {
          const auto [row, down] = split(m, i, c);
          return down * (P[at(m * n + i)] * score(query(m, c) * row) + Q[at(m * n + i)] * score(key(m, c) * row));
        });
      }
      double g = exponential(G_[at((n - 1) * K + c)]) * over_V([&](std::int64_t v) { return S[at(c * V + v)] * read[at(c * V + v)]; });
      for (std::int64_t i = 0; i < n; ++i) g = single(g + single(key(i, c) * end[at(i * K + c)]));
      for (std::int64_t i = n - 1; i >= 0; --i) {
        const std::size_t entry = at((first + i) * K + c);
        g = single(g + single(query(i, c) * row_q[at(i * K + c)]) + single(key(i, c) * (row_k[at(i * K + c)] - column[at(i * K + c)])));
        out.g[entry] = g;
        out.q[entry] = single(head_.scale * (row_q[at(i * K + c)] + P[at(i * n + i)] * key(i, c)));
        out.k[entry] = single(row_k[at(i * K + c)] + column[at(i * K + c)] + P[at(i * n + i)] * query(i, c));
      }
    }
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) {
        double& d = dS[at(c * V + j)];
        d = exponential(G_[at((n - 1) * K + c)]) * d + sum(0, n, [&](std::int64_t i) { return qd_[at(i * K + c)] * d_o(i, j); }) -
            sum(0, n, [&](std::int64_t i) { return kd_[at(i * K + c)] * W[at(i * V + j)]; });
        d = rounded(first % contract_.chunk == 0 ? contract_.state : Format::fp32, push_.adjoint, d);
      }
  }

  const Contract& contract_;
  const Head& head_;
  Push push_;
  bool split_;
  std::int64_t K, V, first_ = 0, n_ = 0;
  Matrix G_, kd_, qd_, kr_, A_, Akk_, T_, R_, U_, Z_, next_;
};

Problem problem_of(std::uint64_t seed, double decay, double beta) {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 3};
  drawn.seed = seed, drawn.decay = decay, drawn.beta_most = beta, drawn.correlation = beta > 1 ? 0.9 : 0;
  return draw(drawn);
}

constexpr std::array<const char*, 6> names{"dq", "dk", "dv", "dg", "dbeta", "d initial_state"};

/// Largest error / bound of every gradient over legal evaluations, in chunks of every legal length.
std::array<double, 6> worst_ratios(const Contract& contract, const Problem& problem) {
  std::vector<std::int64_t> columns(at(problem.shape.V));
  std::iota(columns.begin(), columns.end(), 0);
  const Head head = read_head(contract, problem, sequences(problem)[0], 0, columns);
  const Matrix d_o(problem.d_o.begin(), problem.d_o.end()), d_state(problem.d_final_state.begin(), problem.d_final_state.end());
  std::array<double, 6> worst{};
  for (std::int64_t length : chunk_lengths(contract.chunk, problem.shape.T)) {
    const AdjointBound bound = bound_chunk_adjoint(ProvedUnits(contract), head, 0, contract.chunk, length, d_o, d_state);
    const Gradients exact = PushedChunks(contract, head, {}, false).run(problem, length);
    for (bool split : {false, true})
      for_each_push<Push>(23, 7, [&](const Push& push) {
        const Gradients run = PushedChunks(contract, head, push, split).run(problem, length);
        const auto each = [&](std::size_t which, const Matrix& left, const Matrix& right, const std::vector<double>& bounds) {
          for (std::size_t i = 0; i < left.size(); ++i) {
            const double error = std::abs(left[i] - right[i]);
            const double ratio = error == 0 ? 0 : error / bounds[i / (left.size() / bounds.size())];
            if (!(ratio <= worst[which])) worst[which] = ratio; // a NaN stays
          }
        };
        each(0, run.q, exact.q, bound.q), each(1, run.k, exact.k, bound.k), each(2, run.v, exact.v, bound.v);
        each(3, run.g, exact.g, bound.g), each(4, run.beta, exact.beta, bound.beta), each(5, run.state, exact.state, bound.state);
      });
  }
  return worst;
}

} // namespace

TEST_CASE("the evaluation that the bound is tried on is right without a push") {
  const Problem problem = problem_of(3, 0.3, 1);
  const Contract contract = contract_of("order=residual_first chunk=16");
  const Truth truth = gradient_truth(problem, Arithmetic::double_double, 106);
  const Head head = read_head(contract, problem, sequences(problem)[0], 0, {0, 1, 2});
  for (bool split : {false, true}) {
    const Gradients run = PushedChunks(contract, head, {}, split).run(problem, 16);
    const auto near = [&](Input input, const Matrix& mine) {
      const std::vector<double>& exact = truth[input].value;
      REQUIRE(mine.size() == exact.size());
      for (std::size_t i = 0; i < mine.size(); ++i) {
        INFO(name(input) << " " << i);
        CHECK(std::abs(mine[i] - exact[i]) <= 1e-12);
      }
    };
    near(Input::q, run.q), near(Input::k, run.k), near(Input::v, run.v), near(Input::g, run.g), near(Input::beta, run.beta);
    near(Input::initial_state, run.state);
  }
}

TEST_CASE("the worst legal evaluations in chunks stay inside the bound of every gradient, and come as near as they do") {
  struct Kind {
    const char* text;
    double near; ///< what the largest error / bound of each gradient must reach: measured, with room; below it the bound has grown
  };
  for (const Kind& kind : {Kind{"chunk=16", 0.02}, Kind{"chunk=32 operands=bf16", 0.2}, Kind{"chunk=16 scores=bf16", 0.1},
                           Kind{"chunk=16 state=bf16", 0.1}, Kind{"chunk=16 gradient_state=bf16", 0.1}, Kind{"chunk=16 exp_ulp=20000", 0.1},
                           Kind{"chunk=16 accumulate=bf16", 1e-3}, Kind{"chunk=16 solve=bf16", 2e-4}}) {
    const Contract contract = contract_of(std::string("order=residual_first ") + kind.text);
    std::array<double, 6> closest{};
    for (double decay : {0.0, 1e-3, 0.3, 5.0})
      for (double beta : {0.5, 2.0}) {
        const auto ratios = worst_ratios(contract, problem_of(3, decay, beta));
        for (std::size_t which = 0; which < ratios.size(); ++which) {
          INFO(to_text(contract) << ", decay " << decay << ", beta to " << beta << ", " << names[which] << ": " << ratios[which]);
          CHECK(ratios[which] <= 1);
          closest[which] = std::max(closest[which], ratios[which]);
        }
      }
    for (std::size_t which = 0; which < closest.size(); ++which) {
      INFO(to_text(contract) << ", " << names[which] << " comes within " << closest[which]);
      CHECK(closest[which] > kind.near);
    }
  }
}

namespace {

std::vector<Kernel> right_chunks() {
  std::vector<Kernel> result;
  for (const auto& kernels : {built_in_kernels(), correct_variants()})
    for (const Kernel& kernel : kernels)
      if (kernel.backward && kernel.contract.order == Order::residual_first && kernel.contract.rules == std::vector{Rule::kda} &&
          !kernel.contract.on_device)
        result.push_back(kernel);
  return result;
}

bool derived(const ProvedBound& bound) { return !bound.gradient[static_cast<std::size_t>(Input::k)].empty(); }

} // namespace

// `proved --correct --backward` tries every regime of the quick set.
TEST_CASE("right chunk kernels stay below the bound of every gradient, in every format and order of sums") {
  int kernels = 0, outside = 0, underived = 0;
  for (const Kernel& kernel : right_chunks()) {
    double closest = 0;
    int cases = 0;
    for (const char* regime : {"gaussian-keys", "near-identical-keys", "alternating-keys", "strong-decay", "softplus-gate", "grouped-heads",
                               "loss-on-final-state", "reflections"}) {
      if (regime_named(regime) == nullptr) FAIL("no regime is named " << regime);
      const Problem problem =
          make_problem(fitted(regime_named(regime)->draw(1, Tier::quick), kernel.contract), input_formats(kernel.contract));
      if (outside_domain(kernel.contract, problem)) {
        ++outside;
        continue;
      }
      const ProvedCase proved(kernel.contract, problem, true);
      if (!derived(proved.bound())) {
        ++underived;
        continue;
      }
      const double ratio = proved.ratio(run_backward(kernel, problem));
      INFO(kernel.name << " on " << regime << ": " << ratio);
      CHECK(ratio < 1);
      closest = std::max(closest, ratio), ++cases;
    }
    if (cases == 0) continue;
    ++kernels;
    INFO(kernel.name << " comes within " << closest);
    CHECK(closest > 1e-6);
  }
  std::printf("%d right kernels; %d cases outside a domain, %d without a bound\n", kernels, outside, underived);
  CHECK(kernels >= 15);
}
