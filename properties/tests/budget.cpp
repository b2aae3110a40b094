#include "../budget.hpp"
#include "../confidence.hpp"
#include "../head_spread.hpp"
#include "../perturbed/gradient_trial.hpp"
#include "../perturbed/worse_of.hpp"
#include "drawn_problem.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <thread>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

HeadTruth only_head(const Truth& truth) { return {truth.o.value, truth.final_state.value}; }

} // namespace

TEST_CASE("without noise every perturbed algorithm is the recurrence, at any decay, chunk and length") {
  for (Rule rule : {Rule::kda, Rule::dplr})
    for (double decay : {0.0, 0.05, 5.0, 40.0, 1000.0})
      for (std::int64_t T : {1, 7, 50}) {
        Drawn drawn;
        drawn.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = 13, .V = 11};
        drawn.decay = decay;
        drawn.rule = rule;
        const Problem problem = draw(drawn);
        const Truth truth = gradient_truth(problem);
        for (std::int64_t chunk : {1, 5, 16, 64}) {
          Contract contract;
          contract.chunk = chunk;
          INFO(name(rule) << " decay " << decay << " T " << T << " chunk " << chunk);
          const Sequence sequence = sequences(problem)[0];
          const Head head = read_head(contract, problem, sequence, 0, choose_columns(column_sizes(problem, sequence, 0), 99));
          CHECK(noise_free_deviation(contract, head, only_head(truth)) < 1e-12);
          CHECK(noise_free_gradient_deviation(contract, problem, truth) < 1e-12);
        }
      }
}

TEST_CASE("a deviation that is no number is not forgotten when numbers follow") {
  CHECK(std::isnan(worse_of(std::nan(""), 1)));
  CHECK(std::isnan(worse_of(1, std::nan(""))));
  CHECK(worse_of(1, 2) == 2);
  CHECK(worse_of(2, 1) == 2);
  const Problem problem = draw({});
  const Truth truth = gradient_truth(problem);
  const Sequence sequence = sequences(problem)[0];
  const Head head = read_head({}, problem, sequence, 0, choose_columns(column_sizes(problem, sequence, 0), 99));
  HeadTruth spoilt = only_head(truth);
  spoilt.o[1] = std::nan("");
  CHECK(std::isnan(noise_free_deviation({}, head, spoilt)));
  for (Input input : {Input::q, Input::g, Input::initial_state}) {
    Truth wrong = truth;
    wrong.gradient[static_cast<std::size_t>(input)].value[0] = std::nan("");
    INFO(name(input));
    CHECK(std::isnan(noise_free_gradient_deviation({}, problem, wrong)));
  }
}

TEST_CASE("without noise gradients pass gates, norms, sigmoids and shared heads as they must") {
  for (GateForm gate : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent})
    for (BetaForm beta : {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid}) {
      Drawn drawn;
      drawn.shape = {.B = 2, .T = 9, .H = 2, .HV = 4, .K = 6, .V = 5};
      Problem problem = draw(drawn);
      problem.options.gate = gate;
      problem.options.beta = beta;
      problem.options.l2norm = true;
      for (float& x : problem.k) x *= 0.01f;
      if (gate == GateForm::absent) problem.g.clear();
      if (gate != GateForm::log_decay)
        for (float& x : problem.g) x = 40 * (x + 0.05f);
      if (gate == GateForm::softplus || gate == GateForm::bounded) {
        problem.A_log = {-1, 0, 1, 2};
        for (int i = 0; i < 24; ++i) problem.dt_bias.push_back(0.1f * static_cast<float>(i) - 1);
      }
      INFO(name(gate) << " " << name(beta));
      REQUIRE(!malformed(problem));
      CHECK(noise_free_gradient_deviation({}, problem, gradient_truth(problem)) < 1e-12);
    }
}

TEST_CASE("a coarser format, a coarser state and a truncation never shrink a budget") {
  const Problem problem = draw({});
  const Truth truth = forward_truth(problem);
  const auto token = [&](auto&& change) {
    Contract contract;
    contract.chunk = 16;
    change(contract);
    double sum = 0;
    for (double sigma : forward_budget(contract, problem, truth, 1, 16).output.token) sum += sigma;
    return sum;
  };
  const double fp32 = token([](Contract&) {});
  const double tf32 = token([](Contract& c) { c.operands = c.scores = Format::tf32; });
  const double truncated = token([](Contract& c) { c.operands = c.scores = Format::tf32, c.truncate = true; });
  const double bf16 = token([](Contract& c) { c.operands = c.scores = Format::bf16; });
  const double bf16_state = token([](Contract& c) { c.state = Format::bf16; });
  CHECK(tf32 > 1000 * fp32);
  CHECK(truncated > 1.2 * tf32);
  CHECK(bf16 > 6 * tf32);
  CHECK(bf16_state > 1000 * fp32);
}

TEST_CASE("fp16 operands beyond their range make a budget infinite, small ones widen it") {
  Drawn drawn;
  drawn.value_scale = 1e6;
  Contract contract;
  contract.operands = Format::fp16;
  contract.scores = Format::tf32;
  const Problem large = draw(drawn);
  CHECK(std::isinf(forward_budget(contract, large, forward_truth(large), 1, 8).output.token[20]));
  drawn.value_scale = 1e-6; // most of U lies on fp16's subnormal grid
  const Problem small = draw(drawn);
  drawn.value_scale = 1;
  const Problem usual = draw(drawn);
  const double of_small = forward_budget(contract, small, forward_truth(small), 1, 8).output.token[20] * 1e6;
  const double of_usual = forward_budget(contract, usual, forward_truth(usual), 1, 8).output.token[20];
  CHECK(of_small > 5 * of_usual);
}

TEST_CASE("what is exactly zero has no budget but that of underflow") {
  Drawn drawn;
  drawn.value_scale = 0;
  const Problem problem = draw(drawn);
  const Budget budget = forward_budget({}, problem, forward_truth(problem), 1, 8);
  for (double sigma : budget.output.token) CHECK(sigma < 0x1p-120);
}

TEST_CASE("a sum of log decay that has passed a reset may lose u |G| of the decays after it") {
  Drawn drawn;
  drawn.shape.T = 32;
  drawn.decay = 1e-3;
  Problem problem = draw(drawn);
  Contract contract;
  contract.chunk = 32;
  const auto last_token = [&] { return forward_budget(contract, problem, forward_truth(problem), 1, 16).output.token[31]; };
  const double without = last_token();
  for (std::int64_t c = 0; c < problem.shape.K; ++c) problem.g[static_cast<std::size_t>(3 * problem.shape.K + c)] = -1000;
  CHECK(last_token() > 20 * without); // 1000 u / 3^(1/2) against a few u
}

TEST_CASE("columns that are not followed get a budget by their size") {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 200, .H = 1, .HV = 1, .K = 64, .V = 80}; // more than is affordable
  Problem problem = draw(drawn);
  Contract contract;
  contract.operands = contract.scores = Format::bf16;
  for (std::int64_t t = 0; t < drawn.shape.T; ++t) problem.v[static_cast<std::size_t>(t * 80 + 11)] *= 1e-3f;
  for (std::int64_t c = 0; c < drawn.shape.K; ++c) problem.initial_state[static_cast<std::size_t>(c * 80 + 11)] *= 1e-3f;
  const OutputBudget budget = forward_budget(contract, problem, forward_truth(problem), 1, 8).output;
  for (std::int64_t j = 0; j < 80; ++j) {
    INFO("column " << j);
    CHECK(budget.channel[static_cast<std::size_t>(j)] > 0);
    if (j == 11) continue;
    CHECK(budget.channel[11] < 0.02 * budget.channel[static_cast<std::size_t>(j)]);
  }
}

TEST_CASE("the lines of a tensor are allowed no less than its columns' squares, also where one large column errs more than all others") {
  const auto mean_square = [](const std::vector<double>& sigmas) {
    double sum = 0;
    for (double sigma : sigmas) sum += sigma * sigma / static_cast<double>(sigmas.size());
    return sum;
  };
  for (const std::int64_t K : {16, 128}) // of the latter only some columns are followed, the large one among them
    for (const float large : {1.0f, 40.0f}) {
      Drawn drawn;
      drawn.shape = {.B = 1, .T = 200, .H = 1, .HV = 1, .K = K, .V = 48};
      drawn.decay = 1e-3;
      Problem problem = draw(drawn);
      for (std::int64_t c = 0; c < K; ++c) {
        const float odd = c % 2 == 0 ? large : 1.0f; // no row is a multiple of another
        problem.initial_state[static_cast<std::size_t>(c * 48 + 5)] *= odd * odd;
      }
      Contract contract;
      contract.operands = contract.scores = Format::bf16;
      const OutputBudget budget = forward_budget(contract, problem, forward_truth(problem), 1, 8, Submodels::first).output;
      INFO("K " << K << ", one column larger by " << large);
      const double tolerance = K == 16 ? 1e-12 : 0.3;
      CHECK(mean_square(budget.token) / mean_square(budget.channel) > 1 - tolerance);
      CHECK(mean_square(budget.state_row) / mean_square(budget.state_column) > 1 - tolerance);
    }
}

TEST_CASE("a line's two poolings have one mean: the larger in every draw is at most 1.22 times too wide, and only where one column rules") {
  // columns that are alike but for a power of two err alike but for it
  const auto excess = [](float large) {
    double lines = 0, columns = 0;
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      Drawn drawn;
      drawn.shape = {.B = 1, .T = 60, .H = 1, .HV = 1, .K = 16, .V = 48};
      drawn.seed = seed;
      Problem problem = draw(drawn);
      for (std::int64_t t = 0; t < 60; ++t) problem.v[static_cast<std::size_t>(t * 48 + 5)] *= large;
      for (std::int64_t c = 0; c < 16; ++c) problem.initial_state[static_cast<std::size_t>(c * 48 + 5)] *= large;
      Contract contract;
      contract.operands = contract.scores = Format::bf16;
      const OutputBudget budget = forward_budget(contract, problem, forward_truth(problem), seed, 64, Submodels::first).output;
      for (double sigma : budget.token) lines += sigma * sigma / 60;
      for (double sigma : budget.channel) columns += sigma * sigma / 48;
    }
    return lines / columns;
  };
  const double alike = excess(1), ruled = excess(0x1p10f);
  std::printf("a line's sigma^2 over what its columns' say: %.3f for columns alike, %.3f where one rules (derived: 1, at most 1.48)\n",
              alike, ruled);
  CHECK(alike >= 1);
  CHECK(alike < 1.1);
  CHECK(ruled > 1.2);
  CHECK(ruled < 1.75); // all elements share their draw: the mean of 256 chi^2_1 scatters by a tenth
}

TEST_CASE("a row whose error is that of one element has the scatter of one, not that of its width") {
  Drawn drawn;
  drawn.shape = {.B = 1, .T = 20, .H = 1, .HV = 1, .K = 16, .V = 48};
  Problem problem = draw(drawn);
  std::fill(problem.beta.begin(), problem.beta.end(), 0.0f);
  Contract contract;
  contract.operands = contract.scores = contract.state = Format::bf16; // a stored state's rounding is all that errs
  const auto freedom = [&] { return forward_budget(contract, problem, forward_truth(problem), 1, 128).output.state_row_freedom[3]; };
  CHECK(freedom() > 10);
  problem.initial_state[3 * 48 + 5] *= 1000;
  CHECK(freedom() < 4);
}

TEST_CASE("budgets do not depend on the thread that computes them") {
  Drawn drawn;
  drawn.shape = {.B = 2, .T = 20, .H = 1, .HV = 2, .K = 8, .V = 8};
  const Problem problem = draw(drawn);
  const Truth truth = gradient_truth(problem);
  std::vector<Budget> outputs(4), gradients(4);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < outputs.size(); ++i)
    threads.emplace_back([&, i] {
      outputs[i] = forward_budget({}, problem, truth, 5, 8);
      gradients[i] = gradient_budget({}, problem, truth, 5, 8);
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 1; i < outputs.size(); ++i) {
    CHECK(outputs[i].output.token == outputs[0].output.token);
    CHECK(outputs[i].output.state_row == outputs[0].output.state_row);
    for (std::size_t input = 0; input < all_inputs.size(); ++input)
      CHECK(gradients[i].gradient[input].fine == gradients[0].gradient[input].fine);
  }
}

TEST_CASE("the factor grows with the family, with what its elements share, and with fewer draws") {
  CHECK(confidence_factor(Group::token, 1000, 1, 0) > confidence_factor(Group::token, 10, 1, 0));
  CHECK(confidence_factor(Group::channel, 100, 1, 0) > confidence_factor(Group::channel, 100, 16, 0));
  CHECK(confidence_factor(Group::token, 100, 1, 32) > confidence_factor(Group::token, 100, 1, 128));
  CHECK(confidence_factor(Group::token, 100, 1, 128) > confidence_factor(Group::token, 100, 1, 0));
  CHECK(confidence_factor(Group::token, 1, 64, 0) == 4);
}

TEST_CASE("what one submodel allows, all of them allow: a larger sigma does not hide one whose errors are rare and large") {
  CHECK(reach(Group::token, 1.0, 1) > reach(Group::token, 1.2, 40));
  CHECK(reach(Group::token, 2.0, 1) > reach(Group::token, 1.0, 1));
  CHECK(reach(Group::channel, 0.0, 1) == 0);
  // operands so coarse that sums of products add nothing: the first submodel's draws are then the same on their own
  for (const char* text : {"operands=bf16", "operands=bf16 order=wy chunk=16", "operands=fp16 state=bf16 chunk=16"}) {
    const Contract contract = *parse_contract(text).contract;
    Drawn drawn;
    drawn.correlation = 0.9;
    const Problem problem = draw(drawn);
    const Truth truth = gradient_truth(problem);
    const Budget first = forward_budget(contract, problem, truth, 1, 8, Submodels::first),
                 all = forward_budget(contract, problem, truth, 1, 8);
    const Budget d_first = gradient_budget(contract, problem, truth, 1, 8, Submodels::first),
                 d_all = gradient_budget(contract, problem, truth, 1, 8);
    const auto no_less = [](Group group, const std::vector<double>& sigma, const std::vector<double>& freedom,
                            const std::vector<double>& of_first, const std::vector<double>& freedom_of_first) {
      for (std::size_t i = 0; i < sigma.size(); ++i)
        if (reach(group, sigma[i], freedom[i]) < reach(group, of_first[i], freedom_of_first[i])) return false;
      return true;
    };
    INFO(text);
    const OutputBudget &a = all.output, &f = first.output;
    CHECK(no_less(Group::token, a.token, a.token_freedom, f.token, f.token_freedom));
    CHECK(no_less(Group::channel, a.channel, a.channel_freedom, f.channel, f.channel_freedom));
    CHECK(no_less(Group::state_row, a.state_row, a.state_row_freedom, f.state_row, f.state_row_freedom));
    CHECK(no_less(Group::state_column, a.state_column, a.state_column_freedom, f.state_column, f.state_column_freedom));
    for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::initial_state}) {
      const GradientBudget &da = d_all.gradient[static_cast<std::size_t>(input)], &df = d_first.gradient[static_cast<std::size_t>(input)];
      CHECK(no_less(Group::gradient, da.fine, da.freedom, df.fine, df.freedom));
    }
  }
}

TEST_CASE("degrees of freedom are those of the errors that were drawn") {
  Numbers numbers{7};
  for (int shared : {1, 4, 16}) {
    double second = 0, fourth = 0;
    constexpr int draws = 20000;
    for (int i = 0; i < draws; ++i) {
      double square = 0;
      for (int k = 0; k < shared; ++k) square += std::pow(numbers.normal(), 2) / shared;
      second += square, fourth += square * square;
    }
    const double d = degrees_of_freedom(second, fourth, draws);
    INFO(shared << " independent components, found " << d);
    CHECK(d >= std::max(1.0, 0.4 * shared));
    CHECK(d <= std::max(1.0, 0.7 * shared));
  }
}

TEST_CASE("gradients have finite budgets whatever the decay, in every format: an infinite one would judge nothing") {
  for (const Format format : {Format::fp32, Format::tf32, Format::bf16, Format::fp16})
    for (const double decay : {0.05, 1.0, 5.0, 12.0, 24.0, 60.0, 1000.0}) {
      Drawn drawn;
      drawn.decay = decay;
      const Problem problem = draw(drawn);
      Contract contract;
      contract.chunk = 16;
      contract.operands = contract.scores = format;
      contract.order = Order::residual_first;
      const Budget backward = gradient_budget(contract, problem, gradient_truth(problem), 1, 8);
      const Budget forward = forward_budget(contract, problem, forward_truth(problem), 1, 8);
      INFO(name(format) << " at |g| = " << decay);
      const auto finite = [](const std::vector<double>& sigmas) {
        return std::all_of(sigmas.begin(), sigmas.end(), [](double sigma) { return std::isfinite(sigma); });
      };
      for (const GradientBudget& gradient : backward.gradient) CHECK(finite(gradient.fine));
      CHECK((finite(forward.output.token) && finite(forward.output.state_row)));
    }
}
