// The transitions' gradients against the reference's reverse mode in long double, within what fp32 sums of products may err.

#include "../transition_backward.hpp"

#include "../../../reference/adjoint.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

using namespace kdacheck;
using namespace kdacheck::modules;
using Real = long double;

namespace {

std::mt19937_64 bits(271828);

std::vector<float> uniforms(std::int64_t count, float low, float high) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = low + (high - low) * static_cast<float>(bits() % 65536) / 65536.0f;
  return values;
}

std::vector<Real> part(const std::vector<float>& from, std::int64_t head, std::int64_t width, Real sign, bool magnitude) {
  std::vector<Real> values(from.begin() + head * width, from.begin() + (head + 1) * width);
  if (magnitude)
    for (Real& x : values) x = sign * std::fabs(x);
  return values;
}

struct Numbers {
  StateShape shape;
  std::vector<float> alpha, k, beta, v, a, b, state, d_state;
  explicit Numbers(const StateShape& s) : shape(s) {
    const std::int64_t heads = s.B * s.H;
    alpha = uniforms(heads * s.K, 0, 1), k = uniforms(heads * s.K, -1, 1), beta = uniforms(heads, -1, 2), v = uniforms(heads * s.V, -1, 1);
    a = uniforms(heads * s.K, -1, 1), b = uniforms(heads * s.K, -1, 1);
    state = uniforms(s.elements(), -2, 2), d_state = uniforms(s.elements(), -1, 1);
  }
  State<Real> matrix(const std::vector<float>& from, std::int64_t head, bool magnitude) const {
    State<Real> S(shape.K, shape.V);
    S.element = part(from, head, shape.K * shape.V, 1, magnitude);
    return S;
  }
  /// One head's token. Magnitudes: signs such that no term of the reverse mode's sums is taken from another; what they give
  /// bounds the sum of the terms' absolute values.
  Token<Real> token(Rule rule, std::int64_t head, bool magnitude) const {
    Token<Real> t;
    t.alpha = part(alpha, head, shape.K, 1, magnitude), t.k = part(k, head, shape.K, 1, magnitude);
    t.v = part(v, head, shape.V, rule == Rule::kda ? -1 : 1, magnitude);
    t.beta = part(beta, head, 1, -1, magnitude)[0];
    t.a = part(a, head, shape.K, -1, magnitude), t.b = part(b, head, shape.K, 1, magnitude);
    return t;
  }
};

/// Longest chain of roundings behind a gradient: a sum over K, one over V, and a few products.
Real allowed(const StateShape& s) {
  const Real n = static_cast<Real>(2 * s.K + s.V + 8) * 0x1p-24L;
  return n / (1 - n);
}

void check_near(const char* tensor, const std::vector<float>& written, std::int64_t head, const std::vector<Real>& exact,
                const std::vector<Real>& size, Real relative) {
  INFO(tensor << " of head " << head);
  REQUIRE(exact.size() == size.size());
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const Real error = std::fabs(static_cast<Real>(written[static_cast<std::size_t>(head) * exact.size() + i]) - exact[i]);
    CHECK(error <= relative * std::fabs(size[i]) + 0x1p-149L);
  }
}

const StateShape shapes[] = {{1, 1, 1, 1}, {2, 3, 5, 7}, {1, 2, 16, 33}, {2, 1, 19, 16}, {1, 1, 64, 64}};

} // namespace

TEST_CASE("KDA's step gives the reference's gradients") {
  for (const StateShape& s : shapes) {
    Numbers in(s);
    const auto heads = static_cast<std::size_t>(s.B * s.H), K = static_cast<std::size_t>(s.K), V = static_cast<std::size_t>(s.V);
    std::vector<float> alpha(heads * K), k(heads * K), beta(heads), v(heads * V), d_state = in.d_state;
    update_backward(s, KdaStep{in.alpha, in.k, in.beta, in.v}, in.state, d_state, {alpha, k, beta, v});
    for (std::int64_t head = 0; head < s.B * s.H; ++head) {
      std::vector<std::vector<Real>> found[2];
      for (const bool magnitude : {false, true}) {
        const Token<Real> t = in.token(Rule::kda, head, magnitude);
        const State<Real> S = in.matrix(in.state, head, magnitude);
        State<Real> G = in.matrix(in.d_state, head, magnitude), dX = G;
        add_outer(dX, times(Real(-t.beta), t.k), transposed_times(G, t.k));
        const TokenGradient<Real> d = step_reverse(Rule::kda, t, S, G);
        // of the magnitudes, dk = beta (G w - X m) with beta, w negative: G |w| and X m stand apart
        std::vector<Real> d_k = d.k;
        if (magnitude) {
          const State<Real> X = decayed(t.alpha, S);
          const std::vector<Real> w = minus(t.v, transposed_times(X, t.k)), G_w = matrix_times(in.matrix(in.d_state, head, true), w),
                                  X_m = matrix_times(X, transposed_times(in.matrix(in.d_state, head, true), t.k));
          for (std::size_t i = 0; i < d_k.size(); ++i) d_k[i] = std::fabs(t.beta) * (std::fabs(G_w[i]) + std::fabs(X_m[i]));
        }
        found[magnitude] = {row_dots(S, dX), d_k, {d.beta}, d.v, G.element};
      }
      const Real relative = allowed(s);
      check_near("alpha", alpha, head, found[0][0], found[1][0], relative), check_near("k", k, head, found[0][1], found[1][1], relative);
      check_near("beta", beta, head, found[0][2], found[1][2], relative), check_near("v", v, head, found[0][3], found[1][3], relative);
      check_near("state", d_state, head, found[0][4], found[1][4], relative);
    }
  }
}

TEST_CASE("the general step gives the reference's gradients") {
  for (const StateShape& s : shapes) {
    Numbers in(s);
    const auto heads = static_cast<std::size_t>(s.B * s.H), K = static_cast<std::size_t>(s.K), V = static_cast<std::size_t>(s.V);
    std::vector<float> d_d(heads * K), a(heads * K), b(heads * K), k(heads * K), v(heads * V), d_state = in.d_state;
    update_backward(s, DplrStep{in.alpha, in.a, in.b, in.k, in.v}, in.state, d_state, {d_d, a, b, k, v});
    for (std::int64_t head = 0; head < s.B * s.H; ++head) {
      std::vector<std::vector<Real>> found[2];
      for (const bool magnitude : {false, true}) {
        const Token<Real> t = in.token(Rule::dplr, head, magnitude);
        const State<Real> S = in.matrix(in.state, head, magnitude);
        State<Real> G = in.matrix(in.d_state, head, magnitude);
        const std::vector<Real> decay = row_dots(S, G);
        const TokenGradient<Real> d = step_reverse(Rule::dplr, t, S, G);
        found[magnitude] = {decay, d.a, d.b, d.k, d.v, G.element};
      }
      const std::vector<float>* written[] = {&d_d, &a, &b, &k, &v, &d_state};
      const char* names[] = {"d", "a", "b", "k", "v", "state"};
      for (std::size_t i = 0; i < 6; ++i) check_near(names[i], *written[i], head, found[0][i], found[1][i], allowed(s));
    }
  }
}

TEST_CASE("gradients of a size that does not fit are refused by name and nothing is written") {
  Numbers in({1, 2, 3, 4});
  std::vector<float> alpha(6, 9.0f), k(6), beta(2), v(8), short_v(7), d_state = in.d_state;
  const KdaStep step{in.alpha, in.k, in.beta, in.v};
  CHECK_THROWS_WITH(update_backward(in.shape, step, in.state, d_state, {alpha, k, beta, short_v}),
                    Catch::Contains("d v has 7 numbers, not 8"));
  CHECK_THROWS_WITH(update_backward(in.shape, step, std::span(in.state).first(5), d_state, {alpha, k, beta, v}),
                    Catch::Contains("state has 5"));
  CHECK((d_state == in.d_state && alpha[0] == 9.0f));
}
