// Intermediates of a two-token chunk worked out by hand, and their places in packed, grouped problems.

#include "../chunk_intermediates.hpp"
#include "small_problems.hpp"

#include <catch2/catch.hpp>

#include <stdexcept>

using namespace kdacheck;
using Values = std::vector<double>;

TEST_CASE("a chunk of two tokens without decay has the intermediates worked out by hand") {
  // k = (1,0), (1,1); q = (1,2), (0,1); v = 3, 5; beta = 1/2, 1; S = (1, -1); scale 1/2
  Problem problem;
  problem.shape = {.T = 2, .K = 2};
  problem.options = {.gate = GateForm::absent, .scale = 0.5f};
  problem.q = {1, 2, 0, 1};
  problem.k = {1, 0, 1, 1};
  problem.v = {3, 5};
  problem.beta = {0.5f, 1};
  problem.initial_state = {1, -1};
  const auto chunks = chunk_intermediates(problem, 4);
  REQUIRE(chunks.size() == 1);
  const ChunkIntermediates& chunk = chunks[0];
  CHECK(chunk.length == 2);
  CHECK(chunk.G.value == Values{0, 0, 0, 0});
  CHECK(chunk.Akk.value == Values{0, 0, 1, 0});     // k_2 . k_1 = 1
  CHECK(chunk.Aqk.value == Values{0.5, 0, 0, 0.5}); // q_1 . k_1, q_2 . k_1, q_2 . k_2, halved
  CHECK(chunk.T.value == Values{1, 0, -1, 1});      // inverse of (1 0; beta_2 1)
  CHECK(chunk.W.value == Values{0.5, 0, 0.5, 1});   // rows (1/2)(1,0), then (1,1) - (1/2)(1,0)
  CHECK(chunk.U.value == Values{1, 4});             // Z = (1/2)(3 - 1), 5 - 0; U_2 = Z_2 - Z_1
  CHECK(chunk.end.value == Values{6, 3});           // (1,-1) + 1 (1,0) + 4 (1,1)
  CHECK(chunk.O.value == Values{0, 1.5});           // S_1 = (2,-1): (2 - 2)/2; S_2 = (6,3): 3/2
  CHECK(chunk.Abk.empty());
  CHECK(chunk.Aqa.empty());
}

TEST_CASE("decay enters the intermediates as e^(G_i - G_j)") {
  Problem problem;
  problem.shape = {.T = 3};
  problem.q = problem.k = {1, 1, 1};
  problem.v = {0, 0, 0};
  problem.beta = {0, 0, 0};
  problem.g = {-1, -2, -4};
  const ChunkIntermediates chunk = chunk_intermediates(problem, 3).at(0);
  CHECK(chunk.G.value == Values{-1, -3, -7});
  CHECK(chunk.Akk.value == Values{0, 0, 0, std::exp(-2.0), 0, 0, std::exp(-6.0), std::exp(-4.0), 0});
  CHECK(chunk.Aqk.value == Values{1, 0, 0, std::exp(-2.0), 1, 0, std::exp(-6.0), std::exp(-4.0), 1});
}

TEST_CASE("every chunk of every sequence and head is there once, in order, and hands its state to the next") {
  const Problem problem =
      make_small({.shape = {.H = 1, .HV = 2, .K = 2, .V = 3}, .options = {.rule = Rule::dplr}, .lengths = {5, 0, 1}}, 3);
  const auto chunks = chunk_intermediates(problem, 2);
  std::vector<std::array<std::int64_t, 4>> places;
  for (const auto& chunk : chunks) places.push_back({chunk.sequence, chunk.head, chunk.first, chunk.length});
  CHECK(places == std::vector<std::array<std::int64_t, 4>>{
                      {0, 0, 0, 2}, {0, 0, 2, 2}, {0, 0, 4, 1}, {0, 1, 0, 2}, {0, 1, 2, 2}, {0, 1, 4, 1}, {2, 0, 0, 1}, {2, 1, 0, 1}});
  CHECK(chunks.at(1).start.value == chunks.at(0).end.value);
  CHECK(chunks.at(1).start.low == chunks.at(0).end.low);
  CHECK(chunks.at(0).Abk.value.size() == 4);
  CHECK(chunks.at(0).W.value.size() == 4);
}

TEST_CASE("a chunk length below one is refused") { CHECK_THROWS_AS(chunk_intermediates(make_small({}, 1), 0), std::invalid_argument); }
