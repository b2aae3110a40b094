// What the proved bound of gradients says of a reverse pass that starts from states of a forward pass of the other kind.

#include "../proved/proved_starts.hpp"
#include "../../reference/truth.hpp"
#include "../proved/proved_chunk.hpp"
#include "../proved/proved_chunk_adjoint.hpp"
#include "../proved/proved_general.hpp"
#include "../proved/proved_general_adjoint.hpp"
#include "../transform.hpp"
#include "legal_worst.hpp"
#include "pushed.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

constexpr std::int64_t kept = 32; ///< the token before which the forward pass kept a state that errs

Problem problem_of(double decay, Rule rule) {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 40, .H = 1, .HV = 1, .K = 8, .V = 3};
  drawn.rule = rule, drawn.seed = 3, drawn.decay = decay, drawn.beta_most = 0.1; // most of the state is that which it starts with
  Problem problem = draw(drawn);
  for (float& x : problem.a) x *= 0.1f;
  for (float& x : problem.initial_state) x *= 10;
  return problem;
}

Head head_of(const Contract& contract, const Problem& problem) {
  std::vector<std::int64_t> columns(static_cast<std::size_t>(problem.shape.V));
  std::iota(columns.begin(), columns.end(), 0);
  return read_head(contract, problem, sequences(problem)[0], 0, columns);
}

Problem until_kept(const Problem& problem) { return chosen(problem, window(problem, 0, kept)); }

/// Largest error / bound of the gradients of later tokens, exact but for the state [K,V] that they start from.
double worst_ratio(const Problem& problem, const std::vector<double>& state, const AdjointBound& bound) {
  Problem rest = chosen(problem, window(problem, kept, problem.shape.T - kept));
  rest.d_final_state = problem.d_final_state;
  const Truth truth = gradient_truth(problem, Arithmetic::double_double, 106);
  rest.initial_state.assign(state.begin(), state.end());
  const Truth wrong = gradient_truth(rest, Arithmetic::double_double, 106);
  double worst = 0;
  for (const auto& [input, bounds] : {std::pair{Input::q, &bound.q},
                                      {Input::k, &bound.k},
                                      {Input::v, &bound.v},
                                      {Input::g, &bound.g},
                                      {Input::a, &bound.a},
                                      {Input::b, &bound.b},
                                      {Input::beta, &bound.beta}}) {
    const std::size_t tokens = static_cast<std::size_t>(problem.shape.T), width = truth[input].value.size() / tokens,
                      of_bound = bounds->size() / tokens;
    for (std::size_t i = 0; i < wrong[input].value.size(); ++i) {
      const std::size_t t = i / width + static_cast<std::size_t>(kept), entry = t * of_bound + (of_bound > 1 ? i % width : 0);
      worst = std::max(worst, std::abs(wrong[input].value[i] - truth[input].value[t * width + i % width]) / (*bounds)[entry]);
    }
  }
  return worst;
}

} // namespace

TEST_CASE("gradients token by token after a forward pass in chunks are bounded with what the chunks err by, and need it") {
  const Contract contract = contract_of("chunk=32 cumsum=bf16"); // which no token needs
  const Problem problem = problem_of(0.02, Rule::kda);
  const Head head = head_of(contract, problem);
  const ProvedUnits units(contract);
  const std::vector<double> d_o(problem.d_o.begin(), problem.d_o.end()),
      d_state(problem.d_final_state.begin(), problem.d_final_state.end());
  const std::vector<Order> orders{Order::residual_first, Order::wy};
  const MixedStarts starts = mixed_starts(units, head, 0, 32, {32, 16}, orders);
  const auto alone = bound_adjoint(units, head, 0, 32, d_o, d_state),
             general_alone = bound_adjoint_through_general(units, head, 0, 32, d_o, d_state);
  const auto mixed = bound_adjoint(units, head, 0, 32, d_o, d_state, &starts.tokens),
             general = bound_adjoint_through_general(units, head, 0, 32, d_o, d_state, &starts.tokens);
  const Head before = head_of(contract, until_kept(problem));
  double needed = 0, closest = 0;
  for (Order order : orders)
    for (double push : {-1.0, 1.0}) {
      const Evaluated chunks = LegalWorst(contract, before, {.cumsum = push}).run(order, 32);
      closest = std::max({closest, worst_ratio(problem, chunks.state, mixed), worst_ratio(problem, chunks.state, general)});
      needed = std::max(needed, std::min(worst_ratio(problem, chunks.state, alone), worst_ratio(problem, chunks.state, general_alone)));
    }
  INFO("within " << closest << " of the bound, " << needed << " of that of tokens alone");
  CHECK(closest <= 1);
  CHECK(closest > 0.1);
  CHECK(needed > 10);
}

TEST_CASE("gradients in chunks after a forward pass token by token are bounded with what the tokens err by, and need it") {
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    const Contract contract = contract_of(std::string("chunk=32 exp_ulp=20000") + (rule == Rule::dplr ? " rule=dplr" : ""));
    const Problem problem = problem_of(0.02, rule);
    const Head head = head_of(contract, problem);
    const ProvedUnits units(contract);
    const std::vector<double> d_o(problem.d_o.begin(), problem.d_o.end()),
        d_state(problem.d_final_state.begin(), problem.d_final_state.end());
    const std::vector<Order> orders{Order::residual_first, Order::wy};
    const MixedStarts starts = mixed_starts(units, head, 0, 32, {32, 16}, orders);
    const auto bound = rule == Rule::dplr ? bound_general_adjoint : bound_chunk_adjoint;
    const ChunkStarts alone = rule == Rule::dplr ? chunk_starts<GeneralBound>(units, head, 0, 32, {32, 16}, orders)
                                                 : chunk_starts<ChunkBound>(units, head, 0, 32, {32, 16}, orders);
    double needed = 0, closest = 0;
    for (double push : {-1.0, 1.0}) { // every exponential errs by as much
      Problem before = until_kept(problem);
      const double moved = std::log1p(push * 2 * 20000 * 0x1p-24);
      for (float& g : before.g) g = static_cast<float>(g + moved);
      const Truth tokens = forward_truth(before, Arithmetic::double_double, 106);
      const auto ratio = [&](const ChunkStarts& from, std::int64_t length) {
        return worst_ratio(problem, tokens.final_state.value, bound(units, head, 0, 32, length, orders, from, d_o, d_state));
      };
      closest = std::max({closest, ratio(starts.chunks, 16), ratio(starts.chunks, 32)});
      needed = std::max({needed, ratio(alone, 16), ratio(alone, 32)});
    }
    INFO(name(rule) << ": within " << closest << " of the bound, " << needed << " of that of chunks alone");
    CHECK(closest <= 1);
    CHECK(closest > 0.1);
    CHECK(needed > 1);
  }
}
