// Transitions in O(K V) against the explicit K x K product in long double, with the roundings that the header promises.

#include "../dplr_transition.hpp"

#include "../../../reference/spectrum.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <omp.h>
#include <random>

using namespace kdacheck;
using namespace kdacheck::modules;
using Real = long double;

namespace {

constexpr Real u = 0x1p-24L, smallest = 0x1p-149L;
std::mt19937_64 bits(161803);

std::vector<float> uniforms(std::int64_t count, float low, float high) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = low + (high - low) * static_cast<float>(bits() % 65536) / 65536.0f;
  return values;
}

struct Numbers {
  std::vector<float> alpha, a, b, k, beta, v, state;
  KdaStep kda() const { return {alpha, k, beta, v}; }
  DplrStep dplr() const { return {alpha, a, b, k, v}; }
};
Numbers draw(const StateShape& s, float least_alpha = 0, float most_alpha = 1) {
  const std::int64_t heads = s.B * s.H;
  const float length = 1 / std::sqrt(static_cast<float>(s.K));
  return {.alpha = uniforms(heads * s.K, least_alpha, most_alpha),
          .a = uniforms(heads * s.K, -length, length),
          .b = uniforms(heads * s.K, -length, length),
          .k = uniforms(heads * s.K, -length, length),
          .beta = uniforms(heads, -1, 3),
          .v = uniforms(heads * s.V, -1, 1),
          .state = uniforms(s.elements(), -2, 2)};
}

std::vector<Real> row(const std::vector<float>& values, std::int64_t head, std::int64_t size) {
  return {values.begin() + head * size, values.begin() + (head + 1) * size};
}
Real dot_size(const std::vector<Real>& x, const std::vector<Real>& y) {
  Real sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += std::fabs(x[i] * y[i]);
  return sum;
}

/// Compares one head: M S + key v^T by the explicit matrix; erase, read: the rank-one part taken from Diag(d).
void check_head(const StateShape& s, std::int64_t head, const Matrix<Real>& M, const std::vector<Real>& d, const std::vector<Real>& erase,
                const std::vector<Real>& read, const std::vector<Real>& key, const Numbers& in, const std::vector<float>& out) {
  const std::vector<Real> S = row(in.state, head, s.K * s.V), v = row(in.v, head, s.V), got = row(out, head, s.K * s.V);
  const Real gamma = static_cast<Real>(s.K + 4) * u / (1 - static_cast<Real>(s.K + 4) * u);
  for (std::int64_t j = 0; j < s.V; ++j) {
    std::vector<Real> column;
    for (std::int64_t i = 0; i < s.K; ++i) column.push_back(S[static_cast<std::size_t>(i * s.V + j)]);
    const Real along = dot_size(read, column);
    for (std::int64_t i = 0; i < s.K; ++i) {
      const auto c = static_cast<std::size_t>(i), w = static_cast<std::size_t>(j);
      Real wanted = key.empty() ? 0 : key[c] * v[w];
      Real size = std::fabs(wanted) + std::fabs(d[c] * column[c]) + std::fabs(erase[c]) * along;
      for (std::int64_t m = 0; m < s.K; ++m) wanted += M(i, m) * column[static_cast<std::size_t>(m)];
      INFO("K " << s.K << " V " << s.V << " head " << head << " element " << i << ", " << j);
      REQUIRE(std::fabs(got[static_cast<std::size_t>(i * s.V + j)] - wanted) <=
              gamma * size * 1.001L + static_cast<Real>(s.K + 4) * 4 * smallest);
    }
  }
}

void check_kda(const StateShape& s, const Numbers& in, const std::vector<float>& out, bool with_values) {
  for (std::int64_t head = 0; head < s.B * s.H; ++head) {
    const Transition<Real> A{row(in.alpha, head, s.K), row(in.k, head, s.K), in.beta[static_cast<std::size_t>(head)]};
    const DplrTransition<Real> general = as_dplr(A);
    check_head(s, head, matrix_form(A), general.d, general.a, general.b, with_values ? general.a : std::vector<Real>{}, in, out);
  }
}
void check_dplr(const StateShape& s, const Numbers& in, const std::vector<float>& out, bool with_values) {
  for (std::int64_t head = 0; head < s.B * s.H; ++head) {
    const DplrTransition<Real> A{row(in.alpha, head, s.K), row(in.a, head, s.K), row(in.b, head, s.K)};
    check_head(s, head, matrix_form(A), A.d, A.a, A.b, with_values ? row(in.k, head, s.K) : std::vector<Real>{}, in, out);
  }
}

} // namespace

TEST_CASE("transition and update are the explicit K x K product, in both forms and for every width of V") {
  std::vector<StateShape> shapes{{2, 3, 5, 7}, {1, 2, 16, 16}, {1, 1, 33, 70}, {1, 2, 64, 64}, {1, 1, 1, 1}, {1, 1, 3, 129}};
  for (std::int64_t V = 1; V <= 81; ++V) shapes.push_back({1, 1, 3, V}); // whole blocks, whole registers, every part of one
  for (const StateShape& s : shapes) {
    const Numbers in = draw(s);
    for (bool with_values : {false, true}) {
      std::vector<float> kda = in.state, dplr = in.state;
      with_values ? update(s, in.kda(), kda) : transition(s, in.kda(), kda);
      with_values ? update(s, in.dplr(), dplr) : transition(s, in.dplr(), dplr);
      check_kda(s, in, kda, with_values);
      check_dplr(s, in, dplr, with_values);
    }
  }
}

TEST_CASE("heavy forgetting leaves only what is written, minimal forgetting keeps what no key reads, to the last bit") {
  const StateShape s{1, 1, 8, 5};
  Numbers in = draw(s, 0, 0);
  in.beta = {1};
  std::vector<float> state = in.state;
  update(s, in.kda(), state);
  for (std::int64_t i = 0; i < s.K; ++i)
    for (std::int64_t j = 0; j < s.V; ++j)
      CHECK(state[static_cast<std::size_t>(i * s.V + j)] == in.k[static_cast<std::size_t>(i)] * in.v[static_cast<std::size_t>(j)]);
  in.alpha.assign(8, 1.0f);
  in.k.assign(8, 0.0f);
  in.k[3] = 1;
  state = in.state;
  update(s, in.kda(), state); // k is a unit vector and beta 1: row 3 becomes v
  for (std::int64_t i = 0; i < s.K; ++i)
    for (std::int64_t j = 0; j < s.V; ++j) {
      const float kept = in.state[static_cast<std::size_t>(i * s.V + j)], got = state[static_cast<std::size_t>(i * s.V + j)];
      if (i == 3)
        CHECK(std::fabs(got - in.v[static_cast<std::size_t>(j)]) <= 4 * 0x1p-24f * (std::fabs(kept) + 1));
      else
        CHECK(got == kept);
    }
}

TEST_CASE("a head's result is the same bits with any number of threads and whatever the other heads hold") {
  const StateShape s{16, 8, 64, 72};
  const Numbers in = draw(s);
  const int threads = omp_get_max_threads();
  std::vector<float> one = in.state, several = in.state;
  omp_set_num_threads(1);
  for (int i = 0; i < 3; ++i) update(s, in.kda(), one);
  omp_set_num_threads(3);
  for (int i = 0; i < 3; ++i) update(s, in.kda(), several);
  omp_set_num_threads(threads);
  CHECK(one == several);
  Numbers spoilt = in;
  spoilt.alpha[5] = std::nanf(""); // head 0 alone
  std::vector<float> state = in.state, clean = in.state;
  update(s, spoilt.kda(), state);
  update(s, in.kda(), clean);
  CHECK(std::isnan(state[5 * 72]));
  CHECK(std::equal(state.begin() + 64 * 72, state.end(), clean.begin() + 64 * 72));
}

TEST_CASE("sizes that do not fit are refused by name and nothing is written") {
  const StateShape s{1, 2, 4, 3};
  const Numbers good = draw(s);
  std::vector<float> state = good.state;
  const auto refused = [&](auto change, const char* part) {
    Numbers in = good;
    change(in);
    CHECK_THROWS_WITH(update(s, in.kda(), state), Catch::Contains(part));
    CHECK(state == good.state);
  };
  refused([](Numbers& n) { n.alpha.pop_back(); }, "alpha has 7 numbers, its shape [B,H,K] needs 8");
  refused([](Numbers& n) { n.k.push_back(0); }, "k has 9 numbers");
  refused([](Numbers& n) { n.beta.clear(); }, "beta has 0 numbers");
  refused([](Numbers& n) { n.v.pop_back(); }, "v has 5 numbers");
  Numbers in = good;
  in.a.pop_back();
  CHECK_THROWS_WITH(transition(s, in.dplr(), state), Catch::Contains("a has 7 numbers"));
  CHECK_THROWS_WITH(transition({1, 0, 4, 3}, good.kda(), state), Catch::Contains("H = 0"));
  std::vector<float> small(5);
  CHECK_THROWS_WITH(transition(s, good.kda(), small), Catch::Contains("state has 5 numbers"));
}
