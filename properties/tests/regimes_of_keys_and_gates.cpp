// Regimes of keys and gates do what their names and their one line say, measured on the tensors.

#include "regime_measures.hpp"

using namespace kdacheck;

TEST_CASE("keys have the angles that their regime names") {
  for (const Case& c : cases("gaussian-keys"))
    if (c.problem.shape.T * c.problem.shape.K > 500) CHECK(std::fabs(cosine_of_neighbours(c.problem)) < 0.2);
  for (const Case& c : cases("uniform-keys"))
    if (c.problem.shape.T * c.problem.shape.K > 500) CHECK(cosine_of_neighbours(c.problem) == Approx(0.75).margin(0.06));
  for (const Case& c : cases("near-identical-keys", {Format::bf16, Format::bf16, Format::bf16})) {
    if (c.problem.shape.T > 1) CHECK(cosine_of_neighbours(c.problem) > 0.9);
  }
  for (const Case& c : cases("alternating-keys"))
    if (c.problem.shape.T > 1) CHECK(cosine_of_neighbours(c.problem) < -0.9);
}

TEST_CASE("near-identical keys come with slow decay and beta near 1") {
  CHECK(decay_range("near-identical-keys").most <= 0.0201);
  CHECK(decay_range("alternating-keys").most <= 0.0201);
  for (const Case& c : cases("near-identical-keys")) CHECK(range(c.problem.beta).least > 0.69);
}

TEST_CASE("constant tokens have the same bits throughout a sequence") {
  for (const Case& c : cases("constant-tokens")) {
    const Problem& p = c.problem;
    for (const auto* tensor : {&p.q, &p.k, &p.v, &p.g, &p.beta}) {
      const auto token = tensor->size() / static_cast<std::size_t>(p.shape.B * p.shape.T);
      REQUIRE(std::equal(tensor->begin() + static_cast<std::ptrdiff_t>(token), tensor->end(), tensor->begin()));
    }
    CHECK(p.q != p.k);
  }
}

TEST_CASE("keys have the length that their regime names, to the rounding of their format") {
  for (const Format format : {Format::fp32, Format::bf16})
    for (const Case& c : cases("gaussian-keys", {format, Format::fp32, Format::fp32}))
      for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row)
        CHECK(std::fabs(key_length(c.problem, row, 0) - 1) <= 2 * unit_roundoff(format));
  bool longer = false;
  for (const Case& c : cases("keys-longer-than-one", {Format::bf16, Format::fp32, Format::fp32}))
    for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row) {
      longer = longer || key_length(c.problem, row, 0) > 1.001;
      CHECK(key_length(c.problem, row, 0) < 1.0081);
    }
  CHECK(longer);
  for (const Case& c : cases("tiny-keys")) { // in every case keys near both ends, and as many of each decade
    Range tiny;
    std::size_t short_ones = 0;
    const std::int64_t rows = c.problem.shape.B * c.problem.shape.T;
    for (std::int64_t row = 0; row < rows; ++row) {
      tiny.add(key_length(c.problem, row, 0));
      short_ones += key_length(c.problem, row, 0) < 1e-4;
    }
    CHECK(tiny.most <= 0.1001);
    CHECK(tiny.most > 0.015);
    CHECK(tiny.least == Approx(1e-6).epsilon(1e-3));
    CHECK(static_cast<double>(short_ones) / static_cast<double>(rows) == Approx(0.4).margin(0.1));
  }
  std::size_t zeros = 0, rows = 0, all_zero = 0;
  for (const Case& c : cases("zero-keys")) {
    std::size_t here = 0;
    for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row) here += key_length(c.problem, row, 0) == 0;
    zeros += here;
    rows += static_cast<std::size_t>(c.problem.shape.B * c.problem.shape.T);
    all_zero += here == static_cast<std::size_t>(c.problem.shape.B * c.problem.shape.T);
  }
  CHECK(zeros > rows / 5);
  CHECK(zeros < rows);
  CHECK(all_zero > 0);
  Range inside;
  for (const Case& c : cases("l2norm-inside")) {
    CHECK(c.problem.options.l2norm);
    for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row) inside.add(key_length(c.problem, row, 0));
  }
  CHECK(inside.least < 1e-5);
  CHECK(inside.most > 100);
}

TEST_CASE("decays span what their regime names") {
  CHECK(decay_range("no-decay").most == 0);
  CHECK(decay_range("slow-decay").most <= 0.0201);
  CHECK(decay_range("usual-decay").most > 0.8);
  CHECK(decay_range("strong-decay").most >= 11);
  CHECK(decay_range("strong-decay").least > 0.9);
  CHECK(decay_range("extreme-decay").most >= 1000);
  CHECK(decay_range("trained-gates").most > 1500);
  CHECK(decay_range("published-init").most > 0.5);
  CHECK(decay_range("published-init").least < 1e-3);
  CHECK(decay_range("sigmoid-gate").most > 39);
  CHECK(decay_range("sigmoid-gate").least < 1e-15);
  CHECK(decay_range("mixed-decay").most > 5);
  CHECK(decay_range("mixed-decay").least < 0.01);
}

TEST_CASE("sparse resets are rare, strong and common to a token's channels, and the rest does not decay") {
  std::size_t resets = 0, tokens = 0;
  for (const Case& c : cases("sparse-resets")) {
    const auto K = static_cast<std::size_t>(c.problem.shape.K);
    for (std::size_t at = 0; at < c.problem.g.size(); at += K, ++tokens) {
      const float first = c.problem.g[at];
      for (std::size_t i = 1; i < K; ++i) REQUIRE(c.problem.g[at + i] == first);
      resets += first < 0;
      CHECK((first == 0 || first <= -9.9f));
    }
  }
  CHECK(resets > tokens / 50);
  CHECK(resets < tokens / 3);
}

TEST_CASE("mixed decay holds slow and strong channels in one head") {
  for (const Case& c : cases("mixed-decay")) {
    if (c.problem.shape.K < 16) continue;
    Range head;
    for (std::int64_t i = 0; i < c.problem.shape.K; ++i) head.add(-c.problem.g[static_cast<std::size_t>(i)]);
    CHECK(head.most > 20 * head.least);
  }
}

TEST_CASE("decay differs by head, or by channel, where the regime says so") {
  for (const Case& c : cases("decay-per-head")) {
    const auto K = static_cast<std::size_t>(c.problem.shape.K);
    REQUIRE(c.problem.shape.HV > 1);
    CHECK(c.problem.g[0] < 0);
    CHECK(c.problem.g[K] == 0);
  }
  for (const Case& c : cases("decay-per-channel")) {
    CHECK(c.problem.g[0] < 0);
    CHECK(c.problem.g[1] == 0);
  }
}

TEST_CASE("gates computed inside have the parameters that their regime names") {
  Range gain, bias;
  for (const Case& c : cases("published-init")) {
    CHECK(c.problem.options.l2norm);
    CHECK(c.problem.options.beta != BetaForm::value);
    for (float x : c.problem.A_log) gain.add(std::exp(static_cast<double>(x)));
    for (float x : c.problem.dt_bias) bias.add(std::log1p(std::exp(static_cast<double>(x)))); // dt
  }
  CHECK(gain.least >= 0.999);
  CHECK(gain.most <= 16.001);
  CHECK(gain.most > 10);
  CHECK(bias.least > 0.99e-3);
  CHECK(bias.most < 0.101);
  Range trained;
  for (const Case& c : cases("trained-gates"))
    for (float x : c.problem.A_log) trained.add(std::exp(static_cast<double>(x)));
  CHECK(trained.most > 150);
  CHECK(trained.most <= 200.001);
  bool with = false, without = false, saturated = false;
  for (const Case& c : cases("bounded-gate")) {
    (c.problem.dt_bias.empty() ? without : with) = true;
    CHECK(c.problem.options.lower_bound <= -1);
    CHECK(c.problem.options.lower_bound >= -5);
    const auto g = log_decays(c.problem);
    saturated = saturated || std::all_of(g.begin(), g.end(), [&](double x) { return x < 0.999999 * c.problem.options.lower_bound; });
  }
  CHECK((with && without && saturated));
  for (const Case& c : cases("dead-gates"))
    for (std::size_t j = 0; j < c.problem.A_log.size(); ++j) CHECK((std::isinf(c.problem.A_log[j]) == (j % 2 == 0)));
}
