// Which element of which tensor reaches which token and head: every element holds its own index, written as in [B,T,H,K].

#include "../effective.hpp"
#include "../recurrence.hpp"
#include "small_problems.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;

namespace {

/// Elements 0, 1, 2, ... times a unit.
void number_elements(std::vector<float>& tensor, float unit = 1) {
  for (std::size_t i = 0; i < tensor.size(); ++i) tensor[i] = unit * static_cast<float>(i);
}

} // namespace

TEST_CASE("value head j reads q and k of head j / (HV / H), and its own v, g, beta, a and b") {
  const std::int64_t B = 2, T = 3, H = 2, HV = 6, K = 2, V = 4;
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    Problem problem = make_small({.shape = {B, T, H, HV, K, V}, .options = {.rule = rule}}, 1);
    for (Input input : {Input::q, Input::k, Input::v, Input::beta, Input::a, Input::b}) number_elements(problem[input]);
    number_elements(problem.g, -1);
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t t = 0; t < T; ++t)
        for (std::int64_t j = 0; j < HV; ++j) {
          const Token<double> token = effective_token<double>(problem, Exactly<double>{problem}, b * T + t, j);
          const std::int64_t key_head = j < 3 ? 0 : 1; // heads 0, 1, 2 share the first, 3, 4, 5 the second
          for (std::int64_t i = 0; i < K; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const double shared = static_cast<double>(((b * 3 + t) * 2 + key_head) * 2 + i),
                         own = static_cast<double>(((b * 3 + t) * 6 + j) * 2 + i);
            CHECK(token.q[at] == shared);
            CHECK(token.k[at] == shared);
            CHECK(token.log_decay[at] == -own);
            CHECK(token.alpha[at] == std::exp(-own));
            if (rule == Rule::dplr) CHECK((token.a[at] == own && token.b[at] == own));
          }
          for (std::int64_t i = 0; i < V; ++i)
            CHECK(token.v[static_cast<std::size_t>(i)] == static_cast<double>(((b * 3 + t) * 6 + j) * 4 + i));
          if (rule == Rule::kda) CHECK(token.beta == static_cast<double>((b * 3 + t) * 6 + j));
        }
  }
}

TEST_CASE("A_log belongs to a head, dt_bias to a head and channel, the raw gate to a token, head and channel") {
  const std::int64_t T = 2, HV = 3, K = 2;
  Problem problem = make_small({.shape = {.T = T, .H = 1, .HV = HV, .K = K}, .options = {.gate = GateForm::softplus}}, 1);
  number_elements(problem.g, 0.25f);
  number_elements(problem.A_log, 0.5f);
  number_elements(problem.dt_bias, -0.125f);
  for (std::int64_t t = 0; t < T; ++t)
    for (std::int64_t j = 0; j < HV; ++j)
      for (std::int64_t i = 0; i < K; ++i) {
        const double x = 0.25 * static_cast<double>((t * 3 + j) * 2 + i) - 0.125 * static_cast<double>(j * 2 + i);
        const double expected = -std::exp(0.5 * static_cast<double>(j)) * std::log(1 + std::exp(x));
        const Token<double> token = effective_token<double>(problem, Exactly<double>{problem}, t, j);
        CHECK(token.log_decay[static_cast<std::size_t>(i)] == Approx(expected).epsilon(1e-14)); // a dozen roundings in double
      }
}

TEST_CASE("an absent bias is zero, an absent gate keeps everything, an absent state is zero") {
  Problem problem = make_small({.shape = {.T = 1, .H = 1, .HV = 1, .K = 3, .V = 2},
                                .options = {.gate = GateForm::bounded},
                                .initial_state = false,
                                .dt_bias = false},
                               2);
  Problem zero = problem;
  zero.dt_bias.assign(3, 0.0f);
  zero.initial_state.assign(6, 0.0f);
  const auto decay_of_first = [](const Problem& p) { return effective_token<double>(p, Exactly<double>{p}, 0, 0).log_decay; };
  CHECK(decay_of_first(problem) == decay_of_first(zero));
  CHECK(forward<double>(problem).final_state == forward<double>(zero).final_state);
  problem = make_small({.shape = {.T = 1, .H = 1, .HV = 1, .K = 3, .V = 2}, .options = {.gate = GateForm::absent}}, 2);
  CHECK(effective_token<double>(problem, Exactly<double>{problem}, 0, 0).alpha == std::vector<double>{1, 1, 1});
  CHECK(decay_of_first(problem) == std::vector<double>{0, 0, 0});
}

TEST_CASE("normalisation is applied to q and k and to nothing else") {
  const Problem raw = make_small({.shape = {.T = 2, .H = 1, .HV = 1, .K = 3}}, 3);
  Problem inside = raw;
  inside.options.l2norm = true;
  const Token<double> before = effective_token<double>(raw, Exactly<double>{raw}, 1, 0),
                      after = effective_token<double>(inside, Exactly<double>{inside}, 1, 0);
  for (auto member : {&Token<double>::q, &Token<double>::k}) {
    double square = 1e-6;
    for (double x : before.*member) square += x * x;
    for (std::size_t i = 0; i < 3; ++i) CHECK((after.*member)[i] == Approx((before.*member)[i] / std::sqrt(square)).epsilon(8 * 0x1p-53));
  }
  CHECK(after.v == before.v);
  CHECK(after.alpha == before.alpha);
  CHECK(after.beta == before.beta);
}

TEST_CASE("outputs are laid out as [B,T,HV,V] and states as [N,HV,K,V], also when packed") {
  // no decay, beta 0: the state stays what it was, and q = e_0 reads its first row
  Problem problem =
      make_small({.shape = {.H = 1, .HV = 2, .K = 2, .V = 3}, .options = {.gate = GateForm::absent}, .lengths = {2, 0, 1}}, 4);
  number_elements(problem.initial_state);
  std::fill(problem.beta.begin(), problem.beta.end(), 0.0f);
  for (std::size_t i = 0; i < problem.q.size(); ++i) problem.q[i] = i % 2 == 0 ? 1.0f : 0.0f;
  const Forward<double> outputs = forward<double>(problem);
  CHECK(outputs.final_state == std::vector<double>(problem.initial_state.begin(), problem.initial_state.end()));
  CHECK(outputs.o == std::vector<double>{0, 1, 2, 6, 7, 8, 0, 1, 2, 6, 7, 8, 24, 25, 26, 30, 31, 32}); // sequence 2 starts at 24
}

TEST_CASE("the observer sees every token with the states before and after it") {
  const Problem problem = make_small({.shape = {.H = 1, .HV = 2}, .lengths = {3, 0, 1}}, 5);
  std::vector<std::array<std::int64_t, 3>> seen;
  forward<double>(problem, Exactly<double>{problem},
                  [&](const Sequence& sequence, std::int64_t head, std::int64_t t, const Token<double>& token, const State<double>& before,
                      const State<double>& after) {
                    seen.push_back({sequence.index, head, t});
                    CHECK(step(Rule::kda, token, before).element == after.element);
                  });
  CHECK(seen ==
        std::vector<std::array<std::int64_t, 3>>{{0, 0, 0}, {0, 0, 1}, {0, 0, 2}, {0, 1, 0}, {0, 1, 1}, {0, 1, 2}, {2, 0, 0}, {2, 1, 0}});
}
